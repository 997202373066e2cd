//! The server over real connections, spoken to in bytes as a stranger may.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::*;
use crate::dashboard::fake::{line, model, now, status};
use crate::dashboard::model::{Feed, News};

const TOKEN: &str = "0123456789abcdef";
const DEADLINE: Duration = Duration::from_secs(60);

struct Served {
    port: u16,
    models: watch::Sender<Model>,
    server: AbortHandle,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Served {
    async fn new() -> Self {
        let models =
            watch::Sender::new(model([News::Status(status()), News::Lines(vec![line("a", "<one>")])]));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
        let port = listener.local_addr().expect("an address").port();
        let site = Arc::new(Site::new(Door::new(port, TOKEN.to_owned()), models.subscribe()));
        let server = k8sctl_rpc::task::spawn("server of a test", serve(listener, site));
        Self { port, models, server }
    }

    async fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.expect("it connects");
        stream.write_all(bytes).await.expect("it is sent");
        stream
    }

    fn head(&self, method: &str, path: &str) -> String {
        format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", self.port)
    }

    /// The whole answer: the connection ends with it.
    async fn ask(&self, head: &str) -> String {
        let mut stream = self.send(head.as_bytes()).await;
        let mut answer = Vec::new();
        timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("in time").expect("it reads");
        String::from_utf8(answer).expect("text")
    }

    async fn live(&self) -> Live {
        let stream = self.send(self.head("GET", "/0123456789abcdef/live").as_bytes()).await;
        Live { stream, read: String::new() }
    }
}

/// A page that looks.
struct Live {
    stream: TcpStream,
    read: String,
}

impl Live {
    /// Reads until this has come.
    async fn until(&mut self, text: &str) {
        let more = async {
            while !self.read.contains(text) {
                let mut buffer = [0; 4096];
                let count = self.stream.read(&mut buffer).await.expect("it reads");
                assert!(count > 0, "it ended: {}", self.read);
                self.read.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        };
        timeout(DEADLINE, more).await.unwrap_or_else(|_| panic!("{text:?} never came"));
    }
}

#[tokio::test]
async fn the_page_is_for_who_has_its_url() {
    let served = Served::new().await;
    for (path, kind) in [("", "text/html"), ("page.css", "text/css"), ("page.js", "text/javascript")] {
        let answer = served.ask(&served.head("GET", &format!("/{TOKEN}/{path}"))).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains(&format!("content-type: {kind}; charset=utf-8\r\n")), "{answer}");
    }
    let slash = served.ask(&served.head("GET", &format!("/{TOKEN}"))).await;
    assert!(
        slash.starts_with("HTTP/1.1 308 ") && slash.contains(&format!("location: /{TOKEN}/\r\n")),
        "{slash}"
    );
    for (head, status) in [
        (served.head("GET", "/"), "403"),
        (served.head("GET", "/live"), "403"),
        (served.head("GET", &format!("/{TOKEN}/nothing")), "404"),
        (served.head("POST", &format!("/{TOKEN}/")), "405"),
        (format!("GET /{TOKEN}/ HTTP/1.1\r\nHost: evil.example:{}\r\n\r\n", served.port), "403"),
        (format!("GET /{TOKEN}/ HTTP/1.1\r\n\r\n"), "403"),
    ] {
        let answer = served.ask(&head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}\n{answer}");
        assert!(!answer.contains("<section>") && !answer.contains(TOKEN), "{answer}");
    }
}

#[tokio::test]
async fn every_answer_forbids_what_a_page_could_do() {
    let served = Served::new().await;
    for path in ["/", "/0123456789abcdef/"] {
        let answer = served.ask(&served.head("GET", path)).await;
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'; ",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff\r\n",
            "referrer-policy: no-referrer\r\n",
            "cache-control: no-store\r\n",
            "cross-origin-resource-policy: same-origin\r\n",
        ] {
            assert!(answer.contains(header), "{header:?} is not in:\n{answer}");
        }
        assert!(!answer.contains("access-control-allow"), "{answer}");
    }
}

#[test]
fn the_page_makes_no_markup_of_texts_and_loads_nothing_of_others() {
    for way in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "DOMParser",
        "setAttribute",
        "srcdoc",
    ] {
        assert!(!SCRIPT.contains(way), "{way}");
    }
    for text in [PAGE, STYLE, SCRIPT] {
        assert!(!text.contains("//") || !text.contains("http"), "an address of somebody");
        assert!(!text.contains("url("), "something else is loaded");
    }
    // The policy runs no script that stands in the page, and takes no style that does.
    assert!(!PAGE.contains("<style") && !PAGE.contains("style=") && !PAGE.contains("onload"));
    assert_eq!(PAGE.matches("<script").count(), 1);
    // Every element that the script looks for is there.
    for id in SCRIPT.split("byId(\"").skip(1).chain(SCRIPT.split("fill(\"").skip(1)) {
        let id = id.split('"').next().unwrap_or_default();
        assert!(PAGE.contains(&format!("id=\"{id}\"")), "{id}");
    }
}

#[tokio::test]
async fn a_page_hears_what_changes() {
    let served = Served::new().await;
    let mut live = served.live().await;
    live.until("event: lines\ndata: ").await;
    live.until("\\u003cone\\u003e").await;
    assert!(live.read.contains("content-type: text/event-stream\r\n"), "{}", live.read);
    assert!(live.read.contains("event: picture\ndata: {\"cluster\":\"home\""), "{}", live.read);
    assert!(!live.read.contains('<'), "{}", live.read);
    let lost = News::Lost(Feed::Status, "it went away".to_owned());
    served.models.send_modify(|model| model.apply(lost, now()));
    live.until("\"old\":\"it went away, for").await;
    served.models.send_modify(|model| model.apply(News::Lines(vec![line("a", "two")]), now()));
    live.until("id: 2\n").await;
    assert_eq!(live.read.matches("cone").count(), 1, "no line comes twice: {}", live.read);
}

#[tokio::test]
async fn so_many_pages_look_and_no_more() {
    let served = Served::new().await;
    let mut watching = Vec::new();
    for _ in 0..WATCHERS {
        let mut live = served.live().await;
        live.until("event: picture").await;
        watching.push(live);
    }
    let head = served.head("GET", &format!("/{TOKEN}/live"));
    let answer = served.ask(&head).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    // What is read once is still there for all others.
    assert!(served.ask(&served.head("GET", &format!("/{TOKEN}/"))).await.starts_with("HTTP/1.1 200 "));
    watching.pop();
    // Its place is given back as soon as it is noticed.
    let again = async {
        loop {
            let mut stream = served.send(head.as_bytes()).await;
            let mut first = [0; 12];
            stream.read_exact(&mut first).await.expect("an answer");
            if &first == b"HTTP/1.1 200" {
                break;
            }
        }
    };
    timeout(DEADLINE, again).await.expect("a place");
}

#[tokio::test]
async fn so_many_connect_and_no_more() {
    let served = Served::new().await;
    // Those that ask for nothing hold all places until their time is up.
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        idle.push(served.send(b"GET / HT").await);
    }
    let mut further = TcpStream::connect(("127.0.0.1", served.port)).await.expect("it connects");
    let read = timeout(HEAD_TIMEOUT / 2, further.read(&mut [0; 1])).await.expect("it is hung up on at once");
    assert!(!matches!(read, Ok(1..)), "{read:?}");
    // A place that is given back is one for somebody else.
    drop(idle);
    let again = async {
        loop {
            let mut stream = served.send(served.head("GET", "/").as_bytes()).await;
            let mut first = [0; 12];
            if stream.read_exact(&mut first).await.is_ok() {
                break;
            }
        }
    };
    timeout(DEADLINE, again).await.expect("a place");
}

#[tokio::test]
async fn what_is_no_request_harms_nobody() {
    let served = Served::new().await;
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(2 * HEAD_BYTES));
    for bytes in [&b"\0\0\0\0\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", long.as_bytes()]
    {
        let mut stream = served.send(bytes).await;
        let _ = stream.shutdown().await;
        // Refused or hung up on.
        let _ = timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await.expect("it ends");
    }
    assert!(served.ask(&served.head("GET", &format!("/{TOKEN}/"))).await.starts_with("HTTP/1.1 200 "));
}
