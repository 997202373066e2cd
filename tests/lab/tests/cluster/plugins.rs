//! Plugins on the running cluster: a mistake in the file, the life of hello by commands and by the cluster file, one whose
//! pods cannot pull their image, and one that takes the pod network over and gives it back.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab_tests::pace::Pace;
use lab_tests::vm::Shell;
use lab_tests::{Lab, phase, wait_until};
use serde_json::Value;

use super::workload::bundle_image;
use super::{MINUTE, NODES, k8sctl, told};

/// Nobody listens there: a pull ends at once, and not by a name that nobody resolves.
const NO_IMAGE: &str = "127.0.0.1:9/none:1";
/// How soon behind the begin of its operation it is told why a plugin is stuck.
const TOLD: Duration = Duration::from_secs(30);
/// The pod network of this test.
const LABNET: &str = "labnet";

/// A bundle without an image for it has it refused, with a way on; nothing can be pulled in here.
pub fn plugins_live(lab: &Lab, pace: Pace) -> Result<()> {
    a_mistake_has_its_place(lab)?;
    phase("a plugin");
    if bundle_image(lab, "workload")?.is_none() {
        phase("left out: the plugin hello runs from the bundle's workload image, and this bundle has none");
        let refused = lab.try_run("k8sctl", &["plugin", "add", "hello", "--yes"], 5 * MINUTE)?;
        ensure!(refused.status.code() == Some(3), "{refused:?}");
        for said in ["error PLUGIN-CONFIG /image: ", "brings no image for it", "--set image="] {
            ensure!(refused.err.contains(said), "{said:?} is not in {refused:?}");
        }
        return stuck_says_why(lab, pace);
    }
    by_commands(lab)?;
    stuck_says_why(lab, pace)?;
    by_the_file(lab)
}

/// A pool that has a node's address is refused with the plan, at its line, and whose it is is said.
fn a_mistake_has_its_place(lab: &Lab) -> Result<()> {
    phase("a plugin's mistake in the cluster file");
    let dir = lab.file("plugins/mistake");
    fs::create_dir_all(&dir)?;
    let text = fs::read_to_string(lab.repo("examples/home.toml"))?
        + "\n[plugins.metallb]\naddresses = [\"192.168.122.11-192.168.122.11\"]\n";
    let file = dir.join("cluster.toml");
    fs::write(&file, &text)?;
    let refused = lab.try_run("k8sctl", &["plan", "-f", &file.to_string_lossy()], 5 * MINUTE)?;
    ensure!(refused.status.code() == Some(3), "{refused:?}");
    let place = format!("cluster.toml:{}:", text.lines().count());
    for said in [place.as_str(), "error METALLB-POOL-OVERLAP", "node k8s-worker-1 (192.168.122.11)"] {
        ensure!(refused.err.contains(said), "{said:?} is not in {refused:?}");
    }
    Ok(())
}

/// Added, configured, upgraded, rolled back, removed.
fn by_commands(lab: &Lab) -> Result<()> {
    let mut watched = lab.spawn("k8sctl", &["plugin", "status", "-w", "-o", "json"], &[])?;
    k8sctl(lab, &["plugin", "add", "hello", "--set", "replicas=1", "--yes"])?;
    pods_run(lab, 1)?;
    is_so(lab, "Ready", "0.1.0")?;
    ensure!(shown(lab)?["status"]["trust"] == "built-in", "the tree's own: {}", shown(lab)?);

    phase("a plugin: configured");
    k8sctl(lab, &["plugin", "config", "hello", "--set", "replicas=2", "--set", "message=changed", "--yes"])?;
    pods_run(lab, 2)?;
    let config = lab.json("k8sctl", &["plugin", "config", "hello", "-o", "json"])?;
    ensure!(config["message"] == "changed", "{config}");

    phase("a plugin: upgraded, with another config");
    let before = template(lab)?;
    k8sctl(lab, &["plugin", "upgrade", "hello", "--to", &next_hello()?, "--dev", "--yes"])?;
    pods_run(lab, 2)?;
    is_so(lab, "Ready", "0.2.0")?;
    ensure!(shown(lab)?["status"]["trust"] == "dev", "nobody signed it: {}", shown(lab)?);
    let config = lab.json("k8sctl", &["plugin", "config", "hello", "-o", "json"])?;
    ensure!(config["text"] == "changed" && config["message"].is_null(), "it is not migrated: {config}");
    ensure!(template(lab)? != before, "its pods are those of before");

    phase("a plugin: rolled back");
    k8sctl(lab, &["plugin", "rollback", "hello", "--yes"])?;
    pods_run(lab, 2)?;
    is_so(lab, "Ready", "0.1.0")?;
    ensure!(template(lab)? == before, "its pods are not those of before");
    let said = k8sctl(lab, &["plugin", "logs", "hello"])?;
    ensure!(said.contains("plan: "), "what its program did: {said}");

    phase("a plugin: removed");
    k8sctl(lab, &["plugin", "remove", "hello"])?;
    is_gone(lab, "hello")?;
    let (states, _) = watched.read()?;
    watched.kill()?;
    for state in ["Installing", "Ready", "Removing"] {
        ensure!(
            states.contains(&format!("\"state\":\"{state}\"")),
            "status has not followed {state}:\n{states}"
        );
    }
    Ok(())
}

/// Of its pods one cannot get its image: that is said, with pod and image, long before its deadline.
fn stuck_says_why(lab: &Lab, pace: Pace) -> Result<()> {
    phase("a plugin whose pods cannot pull");
    let dir = lab.file("plugins");
    fs::create_dir_all(&dir)?;
    let dir = dir.to_string_lossy().into_owned();
    lab.run("sh", &["-c", &format!("cd '{dir}' && rm -rf stuck && k8sctl plugin new stuck")], MINUTE)?;
    let image = format!("image={NO_IMAGE}");
    let stuck = format!("{dir}/stuck");
    let allowed = pace.allow(TOLD);
    let deadline = format!("{}s", (allowed + MINUTE).as_secs());
    let add = ["plugin", "add", &stuck, "--dev", "--set", &image, "--deadline", &deadline, "--yes"];
    let from = told::last_event(lab)?;
    let mut adding = lab.spawn("k8sctl", &add, &[])?;
    // What comes before, its package and its plan among that, is not what this measures.
    let mut began = None;
    wait_until("its operation begins", 10 * MINUTE, || {
        ensure!(!adding.has_ended()?, "it ended: {:?}", adding.read()?);
        began = begin_of(&told::events_since(lab, from)?, "stuck")?;
        Ok(began.is_some())
    })?;
    let began = began.context("an event of its begin")?;
    let since = || jiff::Timestamp::now().duration_since(began).unsigned_abs();
    wait_until("it is told which pod cannot pull what", allowed.saturating_sub(since()), || {
        ensure!(!adding.has_ended()?, "it ended: {:?}", adding.read()?);
        let status = lab.json("k8sctl", &["plugin", "status", "stuck", "-o", "json"])?;
        let blocking = &status[0]["blocking"];
        ensure!(names_the_pull(blocking["pod"].as_str().unwrap_or_default()), "{status}");
        Ok(blocking["object"].as_str().is_some_and(|object| object.contains("Deployment stuck/stuck")))
    })?;
    println!("lab: told {:.1} s behind its begin", since().as_secs_f64());
    let ended = adding.wait(allowed + 5 * MINUTE)?;
    let printed = adding.printed(ended)?;
    ensure!(ended.code() == Some(1) && printed.err.contains("error PLUGIN-"), "{printed:?}");
    ensure!(names_the_pull(&printed.err) || names_the_pull(&printed.out), "{printed:?}");
    k8sctl(lab, &["plugin", "remove", "stuck"])?;
    is_gone(lab, "stuck")
}

/// When the operation on a plugin that was not there began: with that, what it asks for is approved.
fn begin_of(events: &[Value], plugin: &str) -> Result<Option<jiff::Timestamp>> {
    let object = format!("plugin {plugin}");
    let begun = events.iter().find(|event| event["type"] == "PluginApproved" && event["object"] == object);
    begun.map(|event| told::moment(&event["time"])).transpose()
}

/// Both words come in turns.
fn names_the_pull(text: &str) -> bool {
    text.contains(NO_IMAGE) && (text.contains("ImagePullBackOff") || text.contains("ErrImagePull"))
}

/// What the file has is there, what it has no more is gone, and a second time there is nothing to do.
fn by_the_file(lab: &Lab) -> Result<()> {
    phase("a plugin of the cluster file");
    let dir = lab.file("plugins/cluster");
    fs::create_dir_all(&dir)?;
    let home = fs::read_to_string(lab.repo("examples/home.toml"))?;
    let file = dir.join("cluster.toml");
    fs::write(&file, format!("{home}\n[plugins.hello]\nreplicas = 1\n"))?;
    let file_text = file.to_string_lossy().into_owned();
    let plan = k8sctl(lab, &["plan", "-f", &file_text])?;
    ensure!(plan.contains("hello") && plan.contains("asks for"), "{plan}");
    let refused = lab.try_run("k8sctl", &["up", "-f", &file_text, "--no-kubeconfig"], 5 * MINUTE)?;
    ensure!(refused.status.code() == Some(6), "what it asks for is to be agreed to: {refused:?}");
    k8sctl(lab, &["up", "-f", &file_text, "--no-kubeconfig", "--yes"])?;
    pods_run(lab, 1)?;
    let lock = fs::read_to_string(dir.join("k8sctl.lock"))?;
    ensure!(lock.contains("name = \"hello\""), "{lock}");

    let again = k8sctl(lab, &["up", "-f", &file_text, "--no-kubeconfig", "--locked"])?;
    ensure!(again.to_lowercase().contains("no changes"), "{again}");
    let owned = lab.try_run("k8sctl", &["plugin", "remove", "hello"], 5 * MINUTE)?;
    ensure!(!owned.status.success() && owned.err.contains("PLUGIN-IN-SPEC"), "{owned:?}");

    fs::write(&file, home)?;
    let plan = k8sctl(lab, &["plan", "-f", &file_text])?;
    ensure!(plan.contains("delete") && plan.contains("hello"), "{plan}");
    k8sctl(lab, &["up", "-f", &file_text, "--no-kubeconfig", "--yes"])?;
    is_gone(lab, "hello")
}

/// A later version of hello, which no release has.
fn next_hello() -> Result<String> {
    let cache = std::env::var("K8S_MYHOME_CACHE").context("the lab sets K8S_MYHOME_CACHE")?;
    Ok(format!("{cache}/dist/next/hello"))
}

fn shown(lab: &Lab) -> Result<Value> {
    lab.json("k8sctl", &["plugin", "show", "hello", "-o", "json"])
}

/// Hello is in this state and of this version.
fn is_so(lab: &Lab, state: &str, version: &str) -> Result<()> {
    wait_until(&format!("hello is {version}, {state}"), 5 * MINUTE, || {
        let status = lab.json("k8sctl", &["plugin", "status", "hello", "-o", "json"])?;
        ensure!(status[0]["version"] == version, "{status}");
        Ok(status[0]["state"] == state)
    })
}

/// As many pods of hello are ready as it is to have, and no other is left.
fn pods_run(lab: &Lab, count: usize) -> Result<()> {
    wait_until(&format!("{count} pods of hello run"), 5 * MINUTE, || {
        let pods = lab.get(&["pods", "-n", "hello"])?;
        let pods = pods["items"].as_array().context("a list")?;
        let is_ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array();
            conditions.is_some_and(|all| all.iter().any(|it| it["type"] == "Ready" && it["status"] == "True"))
        };
        let ready = pods.iter().filter(is_ready).count();
        ensure!((ready, pods.len()) == (count, count), "{ready} of {} pods are ready", pods.len());
        Ok(true)
    })
}

/// What its pods are made of.
fn template(lab: &Lab) -> Result<Value> {
    Ok(lab.get(&["deployment", "-n", "hello", "hello"])?["spec"]["template"].clone())
}

/// Neither the plugin nor its namespace is there. An API server on a busy machine may be away for a moment.
fn is_gone(lab: &Lab, plugin: &str) -> Result<()> {
    let list = lab.json("k8sctl", &["plugin", "list", "-o", "json"])?;
    let mut names = list.as_array().context("a list")?.iter().map(|it| &it["name"]);
    ensure!(names.all(|name| name != plugin), "{list}");
    wait_until(&format!("the namespace {plugin} is gone"), 5 * MINUTE, || {
        let gone = lab.try_run("kubectl", &["get", "namespace", plugin], MINUTE)?;
        ensure!(!gone.status.success() && gone.err.contains("NotFound"), "{gone:?}");
        Ok(true)
    })
}

/// A plugin that is data: it writes what the built-in pod network has into a file of its own, under another name, so that
/// addresses are given out anew. It is no network across nodes: that is for those that are one.
const FILES: [(&str, &str); 5] = [
    (
        "plugin.toml",
        "format = 1\nname = \"labnet\"\nversion = \"0.1.0\"\nsummary = \"A pod network for a test\"\nprotocol = [1]\n\
         provides = [\"cni\"]\nprivileged_pods = true\n[program]\nname = \"data-plugin\"\n\
         [[permission]]\ngroup = \"\"\nkind = \"Namespace\"\nnames = [\"labnet\"]\n\
         verbs = [\"get\", \"create\", \"patch\", \"delete\"]\nwhy = \"its own\"\n\
         [[permission]]\ngroup = \"apps\"\nkind = \"DaemonSet\"\nnamespaces = [\"labnet\"]\nnames = [\"labnet\"]\n\
         verbs = [\"get\", \"create\", \"patch\", \"delete\"]\nwhy = \"the network\"\n[node]\nexternal_cni = true\n",
    ),
    (
        "data.toml",
        "[[object]]\nfile = \"objects/namespace.yaml\"\n[[object]]\nfile = \"objects/daemonset.yaml\"\n\
         [[node]]\ncni = { config_file = \"05-labnet.conflist\" }\n",
    ),
    (
        "schema.json",
        "{\"$schema\": \"https://json-schema.org/draft/2020-12/schema\", \"title\": \"labnet\", \"type\": \"object\", \
         \"additionalProperties\": false, \"properties\": {}}\n",
    ),
    ("objects/namespace.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: labnet}\n"),
    (
        "objects/daemonset.yaml",
        r#"apiVersion: apps/v1
kind: DaemonSet
metadata: {name: labnet, namespace: labnet}
spec:
  selector: {matchLabels: {app: labnet}}
  template:
    metadata: {labels: {app: labnet}}
    spec:
      hostNetwork: true
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      tolerations: [{operator: Exists}]
      containers:
        - name: labnet
          image: "{{ facts.images.workload }}"
          imagePullPolicy: IfNotPresent
          command: ["/bin/busybox", "sh", "-c"]
          args:
            - |
              cd /cni
              ours=10-k8s-myhome.conflist
              if /bin/busybox test -e $ours; then
                /bin/busybox sed 's/"name": "k8s-myhome"/"name": "labnet"/' $ours >.labnet
                /bin/busybox mv .labnet 05-labnet.conflist
              fi
              exec /bin/busybox sleep 1000000
          volumeMounts: [{name: cni, mountPath: /cni}]
      volumes: [{name: cni, hostPath: {path: /etc/cni/net.d}}]
"#,
    ),
];

/// Takes over node by node, whose pods are started anew, and gives it back.
pub fn another_pod_network(lab: &Lab) -> Result<()> {
    if bundle_image(lab, "workload")?.is_none() {
        phase("left out: another pod network, for this bundle has no image that can write its file");
        return Ok(());
    }
    phase("another pod network takes over");
    let dir = lab.file("plugins/labnet");
    for (name, text) in FILES {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        fs::write(path, text)?;
    }
    let from = told::last_event(lab)?;
    k8sctl(lab, &["plugin", "add", &dir.to_string_lossy(), "--dev", "--yes"])?;
    pods_have_moved(lab, from, LABNET)?;
    for (node, ..) in NODES {
        let files = Shell::open(lab, node)?.run("ls /etc/cni/net.d")?;
        ensure!(files.contains("05-labnet.conflist") && !files.contains("10-k8s-myhome"), "{node}: {files}");
    }
    // The pods of the workload were started anew, in that network.
    wait_until("the workload has addresses of it", 10 * MINUTE, || {
        let pods = lab.get(&["pods", "-l", "app=echo"])?;
        let pods = pods["items"].as_array().context("a list")?;
        ensure!(pods.len() == 2, "{} pods of the workload", pods.len());
        for pod in pods {
            let of = |path: &str| pod.pointer(path).and_then(Value::as_str).context(path.to_owned());
            let (node, ip) = (of("/spec/nodeName")?, of("/status/podIP")?);
            let given = Shell::open(lab, node)?.run("ls /var/lib/cni/networks/labnet")?;
            ensure!(given.split_whitespace().any(|file| file == ip), "{ip} of {node} is none of {given}");
        }
        Ok(true)
    })?;

    phase("and gives it back");
    let from = told::last_event(lab)?;
    k8sctl(lab, &["plugin", "remove", LABNET])?;
    is_gone(lab, LABNET)?;
    pods_have_moved(lab, from, "the built-in one")?;
    for (node, ..) in NODES {
        wait_until(&format!("{node} has the built-in network's file alone"), 5 * MINUTE, || {
            let files = Shell::open(lab, node)?.run("ls /etc/cni/net.d")?;
            Ok(files.contains("10-k8s-myhome.conflist") && !files.contains("05-labnet"))
        })?;
    }
    wait_until("all is well", 20 * MINUTE, || told::is_well(lab))?;
    super::workload::workload_answers(lab)
}

/// Of every node it is told, behind that event, that its pods were made anew for this network.
fn pods_have_moved(lab: &Lab, from: u64, network: &str) -> Result<()> {
    let begins = format!("its pod network is {network} now");
    wait_until(&format!("the pods of all nodes are on {network}"), 20 * MINUTE, || {
        for (node, ..) in NODES {
            ensure!(told::has_told(lab, from, node, "PodNetworkChanged", &begins)?, "no event of {node}");
        }
        Ok(true)
    })
}
