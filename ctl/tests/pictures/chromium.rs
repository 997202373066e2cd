//! A headless Chromium of its own, spoken to over its DevTools pipe: JSON with a zero byte behind each message. It has a
//! profile of its own, knows no host but this one, and sends nothing of its own accord.

#![expect(clippy::disallowed_methods, reason = "a test talks with the program itself")]

use std::fs::File;
use std::io;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep, timeout};

use crate::{PATIENCE, PAUSE, program};

/// One at a time: each is several processes.
static TURN: Mutex<()> = Mutex::const_new(());

/// It becomes Chromium, whose pipe is expected at 3 and 4.
const BECOME: &str = "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null";
const FLAGS: &[&str] = &[
    "--headless=new",
    "--remote-debugging-pipe",
    // Root has no sandbox, and the pages are ours.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-breakpad",
    "--metrics-recording-only",
    "--no-pings",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
];
const LOG: &str = "chromium.log";

/// See the module. It ends with this.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    /// Messages that were sent.
    count: u64,
    /// Of its only page.
    session: Option<String>,
    /// Where that page is.
    url: String,
    /// What it told unasked.
    events: Vec<Value>,
    home: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// With an empty page of 1280 × 800.
    pub async fn start() -> Self {
        let chromium = program("chromium");
        let turn = TURN.lock().await;
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", BECOME, "sh"]).arg(chromium).args(FLAGS);
        command.arg(format!("--user-data-dir={}", home.path().join("profile").display())).arg("about:blank");
        for name in ["HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"] {
            command.env(name, home.path());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.stderr(File::create(home.path().join(LOG)).unwrap()).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (url, events) = (String::new(), Vec::new());
        let mut browser = Self { child, to, from, count: 0, session: None, url, events, home, _turn: turn };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach).await;
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        let size = json!({"width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": false});
        browser.call("Emulation.setDeviceMetricsOverride", size).await;
        for domain in ["Page", "Runtime", "Log", "Network", "Audits"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    /// Goes to this address, which is the only one that its page may ask for something.
    pub async fn open(&mut self, url: &str) {
        self.url = url.to_owned();
        let gone = self.call("Page.navigate", json!({"url": url})).await;
        assert_eq!(gone["errorText"], Value::Null, "{gone}");
    }

    /// Shows this page.
    pub async fn write(&mut self, html: &str) {
        self.open("about:blank").await;
        let tree = self.call("Page.getFrameTree", json!({})).await;
        let frame = &tree["frameTree"]["frame"]["id"];
        self.call("Page.setDocumentContent", json!({"frameId": frame, "html": html})).await;
    }

    /// What JavaScript makes of this in the page.
    pub async fn value(&mut self, expression: &str) -> Value {
        let evaluate = json!({"expression": expression, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", evaluate).await;
        assert_eq!(answer["exceptionDetails"], Value::Null, "{expression}");
        answer["result"]["value"].take()
    }

    /// Waits until this is true in the page.
    pub async fn until(&mut self, expression: &str) {
        let end = Instant::now() + PATIENCE;
        while self.value(expression).await != true {
            if Instant::now() > end {
                let text = self.text().await;
                panic!("never came true: {expression}\n{text}");
            }
            sleep(PAUSE).await;
        }
    }

    /// Waits until all this is to be read on the page.
    pub async fn shows(&mut self, texts: &[&str]) {
        let texts = json!(texts);
        self.until(&format!("{texts}.every((it) => document.body?.innerText.includes(it))")).await;
    }

    /// What is to be read on the page.
    pub async fn text(&mut self) -> String {
        self.value("document.body?.innerText").await.as_str().unwrap_or_default().to_owned()
    }

    /// What it has complained of since it was last asked: errors, what the page's policy forbids, and requests to others.
    pub async fn complaints(&mut self) -> Vec<String> {
        // What happened before this answer was told before it.
        self.value("0").await;
        let ours = &self.url;
        self.events.drain(..).filter_map(|event| complaint(&event, ours)).collect()
    }

    /// Waits for a complaint that has this in it.
    pub async fn complains(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.complaints().await.iter().any(|complaint| complaint.contains(text)) {
            assert!(Instant::now() < end, "it never complained of {text}");
            sleep(PAUSE).await;
        }
    }

    /// A PNG from the page's beginning to the end of this element.
    pub async fn picture(&mut self, of: &str) -> Vec<u8> {
        let rect = format!("document.querySelector('{of}').getBoundingClientRect()");
        let size = self.value(&format!("[{rect}.right, {rect}.bottom].map(Math.ceil)")).await;
        let clip = json!({"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1});
        let shot = json!({"format": "png", "clip": clip, "captureBeyondViewport": true});
        let shot = self.call("Page.captureScreenshot", shot).await;
        STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()
    }

    /// Ends it, and waits for that.
    pub async fn close(mut self) {
        self.session = None;
        self.call("Browser.close", json!({})).await;
        timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        let mut answer = match timeout(PATIENCE, self.exchange(method, params)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => panic!("{method}: {error}\n{}", self.log()),
            Err(_) => panic!("{method}: no answer\n{}", self.log()),
        };
        assert_eq!(answer["error"], Value::Null, "{method}");
        answer["result"].take()
    }

    async fn exchange(&mut self, method: &str, params: Value) -> io::Result<Value> {
        self.count += 1;
        let mut message = json!({"id": self.count, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).await?;
        loop {
            let mut read = Vec::new();
            self.from.read_until(0, &mut read).await?;
            if read.pop() != Some(0) {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended"));
            }
            let message: Value = serde_json::from_slice(&read)?;
            if message["id"] == self.count {
                return Ok(message);
            }
            self.events.push(message);
        }
    }

    /// What it said to whoever started it.
    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join(LOG)).unwrap_or_default()
    }
}

/// The whole event, where it is a complaint of a page that may only ask for what is below this address.
fn complaint(event: &Value, ours: &str) -> Option<String> {
    let it = &event["params"];
    let is_bad = |kind: &Value| matches!(kind.as_str(), Some("error" | "warning" | "assert"));
    let is_one = match event["method"].as_str()? {
        "Log.entryAdded" => is_bad(&it["entry"]["level"]),
        "Runtime.consoleAPICalled" => is_bad(&it["type"]),
        "Runtime.exceptionThrown" | "Page.javascriptDialogOpening" => true,
        "Audits.issueAdded" => it["issue"]["code"] == "ContentSecurityPolicyIssue",
        "Network.requestWillBeSent" => !it["request"]["url"].as_str()?.starts_with(ours),
        _ => false,
    };
    is_one.then(|| event.to_string())
}
