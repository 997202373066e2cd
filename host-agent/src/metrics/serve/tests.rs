use super::*;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

const TEXT: &str = "# HELP a_b How many.\n# TYPE a_b counter\na_b_total 1\n# EOF\n";
const CLASSIC_TEXT: &str = "# HELP a_b_total How many.\n# TYPE a_b_total counter\na_b_total 1\n";

fn source() -> Source {
    Arc::new(|| async { Some(TEXT.to_owned()) }.boxed())
}

/// The other end of a conversation.
fn begin(access: Access, source: Source) -> DuplexStream {
    let (ours, theirs) = duplex(1024);
    k8sctl_rpc::task::spawn("conversation", converse(theirs, access, source, None));
    ours
}

async fn all(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    // What was sent before a cut counts.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).expect("text")
}

async fn ask(access: Access, request: &str) -> String {
    let mut stream = begin(access, source());
    stream.write_all(request.as_bytes()).await.expect("it is taken");
    all(&mut stream).await
}

fn get(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[tokio::test]
async fn who_may_look_gets_the_text_in_the_format_that_it_has() {
    for (access, host) in [
        (Access::Role(Role::Reader), "anything"),
        (Access::Role(Role::Admin), "anything"),
        (Access::Loopback, "127.0.0.1:9642"),
        (Access::Loopback, "[::1]:9642"),
        (Access::Loopback, "LOCALHOST"),
    ] {
        let answer = ask(access, &get("/metrics", host)).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{host}: {answer}");
        assert!(
            answer.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            "{answer}"
        );
        assert!(answer.ends_with(&format!("\r\n\r\n{CLASSIC_TEXT}")), "{answer}");
    }
    let old = ask(Access::Loopback, "GET /metrics HTTP/1.0\r\n\r\n").await;
    assert!(old.contains(" 200 OK") && old.ends_with(CLASSIC_TEXT), "{old}");
    let head = ask(Access::Loopback, "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(head.contains(" 200 OK") && head.ends_with("\r\n\r\n"), "{head}");
    for (accept, is_open) in [
        // As Prometheus 2.50 and 3.0 ask.
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1", true),
        ("application/openmetrics-text; version=1.0.0", true),
        ("text/plain, Application/OpenMetrics-Text", true),
        ("application/openmetrics-text;q=0", false),
        ("text/plain;version=0.0.4;q=1,*/*;q=0.1", false),
        ("*/*", false),
        ("", false),
    ] {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
        let answer = ask(Access::Role(Role::Reader), &request).await;
        let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
        assert_eq!(answer.contains(kind), is_open, "{accept}: {answer}");
        assert!(answer.ends_with(if is_open { TEXT } else { CLASSIC_TEXT }), "{accept}: {answer}");
    }
}

#[tokio::test]
async fn others_are_told_why_not() {
    let reader = Access::Role(Role::Reader);
    for (access, request, code, why) in [
        (Access::Role(Role::Unspecified), get("/metrics", "x"), "403", "error AUTH-ROLE: metrics: they need"),
        // A name that leads to the port.
        (Access::Loopback, get("/metrics", "evil.example:9642"), "403", "ask by the address"),
        (Access::Loopback, get("/metrics", "127.0.0.1.evil.example"), "403", "ask by the address"),
        (Access::Loopback, get("/metrics", ""), "403", "ask by the address"),
        (reader, get("/", "x"), "404", "there is /metrics"),
        (reader, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n".to_owned(), "405", "GET"),
        (reader, format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HEADER_LINES + 1)), "431", ""),
        (reader, format!("GET /metrics HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(2 * HEADER_BYTES)), "431", ""),
        (reader, "hello\r\n\r\n".to_owned(), "400", ""),
    ] {
        // What is too long is not read to its end.
        let mut stream = begin(access, source());
        let (mut read, mut write) = tokio::io::split(&mut stream);
        let (_, answer) = tokio::join!(write.write_all(request.as_bytes()), all(&mut read));
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")) && answer.contains(why), "{answer}");
        assert!(!answer.contains(CLASSIC_TEXT), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_slow_is_not_waited_for() {
    let began = Instant::now();
    let mut silent = begin(Access::Loopback, source());
    all(&mut silent).await;
    assert!(began.elapsed() <= 2 * HEADER_TIME, "{:?}", began.elapsed());

    // A byte now and then.
    let began = Instant::now();
    let mut slow = begin(Access::Loopback, source());
    for byte in get("/metrics", "localhost").bytes() {
        if slow.write_all(&[byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert!(!all(&mut slow).await.contains(CLASSIC_TEXT));
    assert!(began.elapsed() <= 2 * HEADER_TIME, "{:?}", began.elapsed());

    // An answer that nobody reads.
    let began = Instant::now();
    let large: Source = Arc::new(|| async { Some("x".repeat(1024 * 1024)) }.boxed());
    let mut deaf = begin(Access::Loopback, large);
    deaf.write_all(get("/metrics", "localhost").as_bytes()).await.expect("it is taken");
    sleep(2 * CONNECTION_TIME).await;
    assert!(all(&mut deaf).await.len() < 1024 * 1024);
    assert!(began.elapsed() <= 3 * CONNECTION_TIME);
}

#[tokio::test]
async fn the_port_serves_and_closes_those_for_whom_there_is_no_place() {
    let listener = bind(([127, 0, 0, 1], 0).into()).await;
    let address = listener.local_addr().expect("an address");
    let port = k8sctl_rpc::task::spawn("port", serve_port(listener, source()));
    let mut open = Vec::new();
    for _ in 0..PORT_CONNECTIONS {
        open.push(TcpStream::connect(address).await.expect("it listens"));
    }
    // They are accepted in turn, and the one too many is closed unread.
    let mut one_more = TcpStream::connect(address).await.expect("it listens");
    assert_eq!(all(&mut one_more).await, "");
    let mut first = open.remove(0);
    first.write_all(get("/metrics", "localhost").as_bytes()).await.expect("it is taken");
    assert!(all(&mut first).await.ends_with(CLASSIC_TEXT));
    // Its place is free a moment later.
    let wait = async {
        loop {
            let mut next = TcpStream::connect(address).await.expect("it listens");
            let asked = next.write_all(get("/metrics", "localhost").as_bytes()).await;
            if asked.is_ok() && all(&mut next).await.ends_with(CLASSIC_TEXT) {
                return;
            }
        }
    };
    timeout(CONNECTION_TIME, wait).await.expect("there is room again");
    port.abort();
}

#[tokio::test]
async fn whoever_says_nothing_to_the_port_takes_no_place_of_its_readers() {
    let listener = bind(([127, 0, 0, 1], 0).into()).await;
    let address = listener.local_addr().expect("an address");
    let large: Source = Arc::new(|| async { Some("x".repeat(32 * 1024 * 1024)) }.boxed());
    let port = k8sctl_rpc::task::spawn("port", serve_port(listener, large));
    let connect = async || TcpStream::connect(address).await.expect("it listens");
    let mut silent = Vec::new();
    for _ in 0..PORT_CONNECTIONS / 2 {
        silent.push(connect().await);
    }
    // They read the beginning of what is more than the system keeps for them.
    let mut reading = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = connect().await;
        stream.write_all(get("/metrics", "localhost").as_bytes()).await.expect("it is taken");
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).await.expect("it is answered");
        assert_eq!(&begin, b"HTTP/1.1 200");
        reading.push(stream);
    }
    let mut one_more = connect().await;
    one_more.write_all(get("/metrics", "localhost").as_bytes()).await.expect("it is taken");
    let refusal = all(&mut one_more).await;
    assert!(
        refusal.starts_with("HTTP/1.1 503 ") && refusal.ends_with("too many read the metrics\n"),
        "{refusal}"
    );
    port.abort();
}

#[tokio::test]
async fn one_user_leaves_places_of_the_socket_to_the_others() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("metrics.sock");
    let (begin, mut begun) = mpsc::unbounded_channel();
    let endless: Source = Arc::new(move || {
        begin.send(()).expect("the test goes on");
        std::future::pending::<Option<String>>().boxed()
    });
    let incoming = unix::listen(&path, |_| false, |_| true).expect("it listens");
    let server = k8sctl_rpc::task::spawn("socket", serve_socket(incoming, endless));
    let mut open = Vec::new();
    for _ in 0..PER_USER {
        let mut stream = UnixStream::connect(&path).await.expect("it listens");
        stream.write_all(get("/metrics", "x").as_bytes()).await.expect("it is taken");
        begun.recv().await.expect("it is asked");
        open.push(stream);
    }
    let mut one_more = UnixStream::connect(&path).await.expect("it listens");
    assert_eq!(all(&mut one_more).await, "", "it is closed unread");
    server.abort();
}
