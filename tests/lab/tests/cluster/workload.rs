//! What runs on the cluster, with whatever Kubernetes bundle the lab has: the system's pods, and a workload across nodes.

use anyhow::{Context as _, Result, ensure};
use lab_tests::{Lab, phase, wait_until};
use serde_json::Value;

use super::{MINUTE, NODES};

/// The image of this role in the lab's bundle, if it has one.
pub fn bundle_image(lab: &Lab, role: &str) -> Result<Option<String>> {
    let bundle = std::env::var("LAB_BUNDLE").context("the lab sets LAB_BUNDLE")?;
    let shown = lab.json("k8sctl", &["bundle", "inspect", &bundle, "-o", "json"])?;
    let images = shown.pointer("/manifest/image").and_then(Value::as_array).context("its images")?;
    let of_role = images.iter().find(|image| image["role"] == role);
    Ok(of_role.and_then(|image| image["name"].as_str()).map(str::to_owned))
}

pub fn system_pods_run(lab: &Lab) -> Result<()> {
    // Cluster DNS, where the bundle has one, begins when nodes are Ready.
    wait_until("all pods of kube-system run", 10 * MINUTE, || {
        let pods = lab.get(&["pods", "-n", "kube-system"])?;
        let pods = pods["items"].as_array().context("a list")?;
        // etcd, API server, controller manager, scheduler, and a kube-proxy a node.
        ensure!(pods.len() >= 4 + NODES.len(), "only {} pods in kube-system", pods.len());
        for pod in pods {
            let (name, phase) = (&pod["metadata"]["name"], &pod["status"]["phase"]);
            ensure!(phase == "Running", "{name} is {phase}");
        }
        Ok(true)
    })
}

/// A pod on each worker, reached through its Service and directly across nodes.
pub fn workload_answers(lab: &Lab) -> Result<()> {
    phase("a workload across nodes");
    let image = bundle_image(lab, "pause")?.context("the bundle has the image of the pods' sandbox")?;
    let echo = std::fs::read_to_string(lab.repo("tests/lab/echo.yaml"))?;
    ensure!(echo.contains("image: PAUSE"), "echo.yaml leaves the image open");
    let file = lab.file("echo.yaml");
    std::fs::write(&file, echo.replace("image: PAUSE", &format!("image: {image}")))?;
    lab.kubectl(&["apply", "-f", &file.to_string_lossy()], MINUTE)?;
    let rollout = ["rollout", "status", "deployment/echo", "--timeout=10m"];
    lab.kubectl(&rollout, 11 * MINUTE)?;
    let pods = lab.get(&["pods", "-l", "app=echo"])?;
    let pods = pods["items"].as_array().context("a list")?;
    let field = |pod: &Value, path: &str| pod.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let mut hosts: Vec<_> = pods.iter().filter_map(|pod| field(pod, "/spec/nodeName")).collect();
    hosts.sort();
    ensure!(hosts == ["k8s-worker-1", "k8s-worker-2"], "the pods are on {hosts:?}");
    let service = lab.get(&["service", "echo"])?;
    let service = service["spec"]["clusterIP"].as_str().context("a cluster IP")?.to_owned();
    let mut addresses: Vec<String> = pods.iter().filter_map(|pod| field(pod, "/status/podIP")).collect();
    addresses.push(service);
    let names: Vec<String> = pods.iter().filter_map(|pod| field(pod, "/metadata/name")).collect();
    ensure!(names.len() == hosts.len(), "the pods are {names:?}");
    for name in &names {
        for address in &addresses {
            // Not wget: the one of a statically linked busybox crashes in the resolver.
            let get = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | /bin/busybox nc -w 10 {address} 8080");
            let get = ["exec", name, "--", "/bin/busybox", "sh", "-c", &get];
            wait_until(&format!("{address} answers {name}"), 5 * MINUTE, || {
                Ok(lab.kubectl(&get, MINUTE)?.contains("here"))
            })?;
        }
    }
    super::inside::pods_do_not_reach_the_host_agent(lab, &names)
}
