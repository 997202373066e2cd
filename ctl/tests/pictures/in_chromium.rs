//! What is to be seen in a browser.

use rustix::process::Signal;
use tokio::time::timeout;

use crate::PATIENCE;
use crate::chromium::Browser;
use crate::fake::scenes::{CONTROL_SHOWN, MARKUP, WIDE, api_down, dead_node, hostile, line};
use crate::harness::{Bench, send};

#[tokio::test]
async fn a_page_shows_all_of_it_live_and_says_when_it_is_old() {
    let mut bench = Bench::apart(dead_node());
    let mut browser = Browser::start().await;
    let (mut child, url) = bench.served().await;
    browser.open(&url).await;
    let nodes = ["k8s-control-plane-1", "192.168.122.12", "k8s-worker-1", "crashed", "VMRunning, AgentReady"];
    let conditions = ["the VM is crashed", "NotRunning", "NoSession", "KubernetesAPI", "AllPartsReady"];
    let operation = ["Operation: up is running, for ", "Configuring", "containerd ✓", "cni …", "kubeadm ·"];
    let others =
        ["Plugins", "2 of 2 objects are ready", "its agent went away; it is waited for", "step cni: running"];
    browser.shows(&["! not well yet: 1 of 3 nodes Ready", "Kubernetes v1.29.0"]).await;
    browser.shows(&[&nodes[..], &conditions, &operation, &others].concat()).await;
    assert_eq!(browser.value("document.title").await, "! home");

    bench.fake.add(|answers| answers.logs.push(line(0, "k8s-worker-2", "agent", "step cni: done")));
    browser.shows(&["step cni: done"]).await;
    // The API goes down, and logs still come.
    bench.fake.add(|answers| answers.status.push(api_down()));
    browser.shows(&["0 of 3 nodes Ready", "NoAnswer", "connection refused"]).await;
    bench.fake.add(|answers| answers.logs.push(line(0, "k8s-worker-1", "kubelet", "still told")));
    browser.shows(&["still told"]).await;
    assert_eq!(browser.value("document.getElementById('old').hidden").await, true);

    bench.leave().await;
    browser
        .shows(&["OLD: the host agent does not answer, for ", "! was not well", "crashed", "still told"])
        .await;
    bench.come_back();
    bench.fake.add(|answers| answers.logs.push(line(0, "k8s-worker-2", "agent", "told after that")));
    browser.until("document.getElementById('old').hidden").await;
    browser.shows(&["told after that"]).await;
    for text in ["step cni: done", "still told"] {
        let count = browser.text().await.matches(text).count();
        assert_eq!(count, 1, "no line comes twice: {text}");
    }
    assert_eq!(browser.complaints().await, [""; 0]);

    send(&child, Signal::INT);
    let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(130));
    browser
        .shows(&[
            "OLD: k8sctl dashboard has ended, refuses this page, or cannot be reached",
            "crashed",
            "still told",
        ])
        .await;
    browser.close().await;
}

#[tokio::test]
async fn texts_of_strangers_stay_texts() {
    let bench = Bench::new(hostile());
    let mut browser = Browser::start().await;
    let (mut child, url) = bench.served().await;
    browser.open(&url).await;
    browser.shows(&[CONTROL_SHOWN, MARKUP, WIDE, &WIDE.repeat(40), "NODE-SILENT"]).await;
    let both = format!("{CONTROL_SHOWN} {MARKUP}");
    for place in ["conditions", "objects", "plugins", "evidence"] {
        let text = browser.value(&format!("document.getElementById('{place}').innerText")).await;
        assert!(text.as_str().is_some_and(|text| text.contains(&both)), "{place}: {text}");
    }
    let titles = browser.value("Array.from(document.querySelectorAll('#nodes tr'), (it) => it.title)").await;
    assert_eq!(titles[1], both, "{titles}");
    assert_eq!(browser.value("document.querySelectorAll('main img, main script').length").await, 0);
    assert_eq!(browser.value("typeof window.acted").await, "undefined");
    assert_eq!(browser.complaints().await, [""; 0]);

    // Were one of them markup, the page's policy would still be there: no text becomes code, and nothing is loaded.
    let code = "(() => { const it = document.createElement('script'); \
                try { it.textContent = 'window.acted = 1'; } catch (error) { return error.name; } \
                document.body.append(it); return 'taken'; })()";
    assert_eq!(browser.value(code).await, "TypeError");
    browser.complains("TrustedScript").await;
    let image =
        "(() => { const it = new Image(); it.src = 'http://192.0.2.1/'; document.body.append(it); })()";
    browser.value(image).await;
    browser.complains("img-src").await;
    assert_eq!(browser.value("typeof window.acted").await, "undefined");
    child.kill().await.unwrap();
    browser.close().await;
}
