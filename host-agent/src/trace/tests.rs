use std::net::SocketAddr;

use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use tracing::Level;

use super::*;
use crate::log_lines;

const ID: &str = "0192f0c1-2d3e-7a4b-8c5d-6e7f80912a3b";
const PATIENCE: Duration = Duration::from_secs(60);
/// Spans are sent as soon as there are some.
const AT_ONCE: Duration = Duration::from_millis(1);

fn some_span() -> Option<SpanData> {
    let (from, until) = (Timestamp::from_second(10), Timestamp::from_second(20));
    spans::phase(ID, "worker", "Booting", (from.expect("a moment"), until.expect("a moment")))
}

/// A collector that hands on what it takes.
struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).await.expect("the test waits");
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (SocketAddr, mpsc::Receiver<ExportTraceServiceRequest>) {
    let (sender, requests) = mpsc::channel(16);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(sender)));
    k8sctl_rpc::task::spawn("collector", server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, requests)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_reach_a_collector_under_the_operations_id() {
    let (address, mut requests) = collector().await;
    let tracer = Tracer::start(&format!("http://{address}")).expect("an exporter");
    tracer.tell(some_span);
    assert_eq!(tracer.counts().made, 1);
    // What waits is sent by the end.
    tracer.stop().await;
    let request = timeout(PATIENCE, requests.recv()).await.expect("in time").expect("a request");
    let [of_resource] = request.resource_spans.as_slice() else { panic!("{request:?}") };
    let resource = format!("{:?}", of_resource.resource);
    assert!(resource.contains("service.name") && resource.contains("k8s-host-agent"), "{resource}");
    let span = &of_resource.scope_spans[0].spans[0];
    let id = uuid::Uuid::parse_str(ID).expect("an id");
    assert_eq!((span.name.as_str(), span.trace_id.as_slice()), ("Booting", id.as_bytes().as_slice()));
    assert_eq!(span.parent_span_id, &id.as_bytes()[8..]);
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (10_000_000_000, 20_000_000_000));
    // The answer is on its way.
    let counted = async {
        while tracer.counts() != (SpanCounts { made: 1, sent: 1 }) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, counted).await.expect("it counts as sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_not_there_holds_nobody_up() {
    // Bound and closed again: nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let tracer = Tracer::start(&format!("http://{address}")).expect("an exporter");
    let work = async {
        for _ in 0..4 * KEPT {
            tracer.tell(some_span);
        }
        tracer.stop().await;
    };
    timeout(PATIENCE, work).await.expect("nothing waits for it");
    assert_eq!(tracer.counts(), SpanCounts { made: 4 * KEPT as u64, sent: 0 });
    // Afterwards, too.
    tracer.tell(some_span);
}

/// Refuses and takes as it is told to.
#[derive(Debug)]
struct Moody(Vec<bool>, AtomicU64);

impl SpanExporter for Moody {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        let number = self.1.fetch_add(1, Ordering::Relaxed);
        match self.0.get(usize::try_from(number).unwrap_or(usize::MAX)) {
            Some(true) => Ok(()),
            _ => Err(OTelSdkError::InternalFailure("moody".to_owned())),
        }
    }
}

#[tokio::test]
async fn a_collector_that_goes_and_comes_back_is_told_of_once_each() {
    let (lines, _guard) = log_lines::collect(Level::INFO);
    let sent = Arc::new(AtomicU64::new(0));
    let moods = vec![true, false, false, false, true, true, false];
    let count = moods.len();
    let exporter = Watched::new(Moody(moods, AtomicU64::new(0)), "http://there:1", Arc::clone(&sent));
    for _ in 0..count {
        let batch: Vec<SpanData> = some_span().into_iter().chain(some_span()).collect();
        // The result is the exporter's.
        let _ = exporter.export(batch).await;
    }
    assert_eq!(sent.load(Ordering::Relaxed), 6, "two of three batches each");
    let told = lines.all();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].contains("takes no spans") && told[0].contains("moody"), "{told:?}");
    assert!(told[1].contains("takes spans again"), "{told:?}");
    assert!(told[2].contains("takes no spans"), "{told:?}");
}

#[tokio::test]
async fn what_waits_is_bounded_while_the_collector_is_slow() {
    #[derive(Debug)]
    struct Stuck;

    impl SpanExporter for Stuck {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            // As one that answers never within this test; its thread ends with the process.
            std::future::pending::<()>().await;
            Ok(())
        }
    }

    let tracer = Tracer::with(Stuck, "http://there:1", AT_ONCE);
    for _ in 0..4 * KEPT {
        tracer.tell(some_span);
    }
    assert_eq!(tracer.counts(), SpanCounts { made: 4 * KEPT as u64, sent: 0 });
    // It is not waited for longer than a moment.
    timeout(PATIENCE, tracer.stop()).await.expect("it ends");
}

#[tokio::test]
async fn where_nobody_wants_spans_none_are_made() {
    let tracer = Tracer::default();
    tracer.tell(|| -> Option<SpanData> { panic!("nobody wants it") });
    assert!(!tracer.is_on());
    assert_eq!(tracer.counts(), SpanCounts::default());
    tracer.stop().await;
}
