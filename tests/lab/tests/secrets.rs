//! No secret in argv, environment, logs, domain XML, store or files that others may read: a whole `up` and `down`
//! with everything logged, every secret of it known, and every place looked through.
//!
//! On the simulated host: the host agent, its certificates, the joins and the sessions are real; the node agents
//! take over the files that they shall have, and do not write them to a root of their own.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab_tests::canary::{Canary, Scanner};
use lab_tests::processes::Processes;
use lab_tests::simulated::SimulatedHost;
use lab_tests::{Lab, phase};
use serde_json::Value;

const MINUTE: Duration = Duration::from_secs(60);
/// Everything that our programs ever log.
const LOG: &str = "trace";
/// Images are larger, and were made before there was a secret.
const LARGEST: u64 = 64 << 20;
const NODES: [&str; 3] = ["sim-control", "sim-worker-1", "sim-worker-2"];

/// Where secrets are at home: in files that are their owner's alone, of these names below the host's directory.
fn is_home(path: &Path) -> bool {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    matches!(
        parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>()[..],
        ["state", "pki", _, "node-ca.pem" | "kubernetes.json"]
            | ["state", "plugins", "secrets", _, _, _, _]
            | ["nodes", _, "state", "identity.json" | "pending.json" | "desired.pb"]
            | ["kubeconfig"]
    )
}

/// What is looked through: by a name that says where it was found.
type Places = BTreeMap<String, Vec<u8>>;

/// All regular files below a directory.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        // Directories come and go as well.
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// A file's content. Files come and go while programs run.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let Ok(mut file) = fs::File::open(path) else { return Ok(None) };
    let size = file.metadata()?.len();
    if size > LARGEST {
        ensure!(path.iter().any(|part| part == "pool"), "{} is too large to look through", path.display());
        return Ok(None);
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content).with_context(|| path.display().to_string())?;
    Ok(Some(content))
}

/// All files of the host but those where secrets are at home and that are private; all logs and printed texts.
fn files_open_to_view(lab: &Lab, host: &SimulatedHost, places: &mut Places) -> Result<()> {
    let dir = host.file("");
    for path in files(&dir)? {
        let mode = fs::metadata(&path).map(|metadata| metadata.mode()).unwrap_or_default();
        let is_private = mode & 0o077 == 0;
        if !(is_private && is_home(path.strip_prefix(&dir)?))
            && let Some(content) = read(&path)?
        {
            places.insert(format!("file {} ({:o})", path.display(), mode & 0o7777), content);
        }
    }
    let printed = fs::read_dir(lab.file(""))?.filter_map(|entry| Some(entry.ok()?.path()));
    let printed = printed.filter(|path| path.extension().is_some_and(|end| end == "out" || end == "err"));
    let libvirts = ["/var/log/libvirt", "/run/libvirt", "/etc/libvirt", "/var/lib/libvirt"];
    let mut logs: Vec<PathBuf> = printed.collect();
    for dir in libvirts {
        logs.extend(files(Path::new(dir))?);
    }
    for path in logs {
        if let Some(content) = read(&path)? {
            places.insert(format!("log {}", path.display()), content);
        }
    }
    Ok(())
}

/// What libvirt and the host agent say when asked.
fn answers(host: &SimulatedHost, places: &mut Places) -> Result<()> {
    for name in host.virsh(&["list", "--all", "--name"])?.split_whitespace() {
        for more in [&[][..], &["--security-info"], &["--inactive"]] {
            let mut args = vec!["dumpxml", name];
            args.extend(more);
            places.insert(format!("domain XML {name} {more:?}"), host.virsh(&args)?.into_bytes());
        }
    }
    for (list, dump) in [("net-list", "net-dumpxml"), ("pool-list", "pool-dumpxml")] {
        for name in host.virsh(&[list, "--all", "--name"])?.split_whitespace() {
            places.insert(format!("{dump} {name}"), host.virsh(&[dump, name])?.into_bytes());
        }
    }
    for args in [&["events", "-o", "json"][..], &["status", "-o", "json"], &["doctor", "-o", "json"]] {
        // After a `down` there is no status.
        let printed = host.try_k8sctl(args)?;
        places.insert(format!("k8sctl {}", args.join(" ")), (printed.out + &printed.err).into_bytes());
    }
    Ok(())
}

fn look_around(lab: &Lab, host: &SimulatedHost) -> Result<Places> {
    let mut places = Places::new();
    answers(host, &mut places)?;
    files_open_to_view(lab, host, &mut places)?;
    Ok(places)
}

/// Sentences on what was found where it should not be.
fn leaks(scanner: &Scanner, places: &Places) -> Vec<String> {
    let found = places.iter().map(|(place, bytes)| (place, scanner.find(bytes)));
    found.filter(|(_, names)| !names.is_empty()).map(|(place, names)| format!("{place}: {names:?}")).collect()
}

/// Every secret of the cluster that there is now.
fn secrets(host: &SimulatedHost) -> Result<Vec<Canary>> {
    let mut canaries = Vec::new();
    let offered = host.tap()?.secrets();
    ensure!(offered.len() >= NODES.len(), "only {} join secrets passed", offered.len());
    for (number, secret) in offered.iter().enumerate() {
        canaries.push(Canary::of_bytes(format!("join secret {}", number + 1), &hex::decode(secret)?));
    }
    let dir = host.file("");
    let mut homes = BTreeMap::new();
    for path in files(&dir)? {
        let name = path.strip_prefix(&dir)?;
        if !is_home(name) {
            continue;
        }
        let mode = fs::metadata(&path)?.mode();
        ensure!(mode & 0o077 == 0, "{} has secrets and mode {:o}", path.display(), mode & 0o7777);
        let content = read(&path)?.context("it was just there")?;
        let name_text = name.display().to_string();
        let keys = match serde_json::from_slice::<Value>(&content)
            .ok()
            .and_then(|json| json["key_der"].as_str().map(str::to_owned))
        {
            Some(key) => vec![Canary::of_key(format!("node key of {name_text}"), &hex::decode(key)?)],
            None => Canary::of_file(&name_text, &content)?,
        };
        let kind = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        *homes.entry(kind).or_insert(0) += keys.len();
        canaries.extend(keys);
    }
    // 4 authorities, a service account key, and a leaf for everything that speaks TLS; 3 nodes; 1 administrator.
    for (kind, least) in
        [("node-ca.pem", 1), ("kubernetes.json", 10), ("identity.json", 3), ("desired.pb", 5)]
    {
        let count = homes.get(kind).copied().unwrap_or_default();
        ensure!(count >= least, "only {count} secrets in files {kind}: {homes:?}");
    }
    Ok(canaries)
}

fn wait_ready(host: &mut SimulatedHost) -> Result<()> {
    host.run_until("all nodes are Ready", 5 * MINUTE, |host| {
        let status: Value = serde_json::from_str(&host.k8sctl(&["status", "-o", "json"])?)?;
        let nodes = status["nodes"].as_array().context("nodes")?;
        let running = status["operation_id"].as_str().is_some_and(|id| !id.is_empty());
        Ok(nodes.len() == NODES.len() && nodes.iter().all(|node| node["phase"] == "Ready") && !running)
    })
}

#[test]
fn no_secret_is_where_others_see_it() -> Result<()> {
    let lab = Lab::here()?;
    let spec = lab.repo("tests/lab/simulated.toml").to_string_lossy().into_owned();
    let mut host = SimulatedHost::new(&lab, "secrets")?.with_log(LOG).with_tap()?;
    let processes = Processes::watch();
    let agent = host.host_agent(None)?;
    phase("up");
    host.k8sctl(&["up", "-f", &spec, "--yes", "--no-wait"])?;
    wait_ready(&mut host)?;
    phase("an agent that has lost its certificate gets another secret");
    let before = host.tap()?.secrets().len();
    let machine = host.virsh(&["domuuid", NODES[1]])?.trim().to_owned();
    host.kill_node_agent(NODES[1])?;
    fs::remove_file(host.file(&format!("nodes/{machine}/state/identity.json")))?;
    host.run_until("another secret passed", MINUTE, |host| Ok(host.tap()?.secrets().len() > before))?;
    wait_ready(&mut host)?;

    phase("looking while it is up");
    let kubeconfig = host.file("kubeconfig").to_string_lossy().into_owned();
    host.k8sctl_with(&["kubeconfig", "sim"], &[("KUBECONFIG", &kubeconfig)])?;
    let mut canaries = secrets(&host)?;
    let admin = Canary::of_file("kubeconfig", &fs::read(&kubeconfig)?)?;
    ensure!(admin.len() == 2, "the administrator's key and its base64: {admin:?}");
    let of_plugin = keep_for_a_plugin(&host)?;
    let mut places = look_around(&lab, &host)?;

    phase("down");
    host.k8sctl(&["down", "--yes"])?;
    let left = fs::read_dir(host.file("state/pki"))?.count();
    ensure!(left == 0, "down left {left} certificate authorities");
    for secret in host.tap()?.secrets() {
        canaries.push(Canary::of_bytes("join secret", &hex::decode(secret)?));
    }
    canaries.push(of_plugin);
    let left = files(&host.file("state/plugins/secrets"))?;
    ensure!(left.is_empty(), "down left secrets of plugins: {left:?}");
    let after = look_around(&lab, &host)?;
    places.extend(after.into_iter().map(|(place, bytes)| (format!("after down, {place}"), bytes)));
    for (number, (what, bytes)) in processes.end()?.into_iter().enumerate() {
        places.insert(format!("{what} of process {number}: {}", beginning(&bytes)), bytes);
    }

    phase(&format!("looking for {} secrets in {} places", canaries.len(), places.len()));
    for wanted in ["argv of", "environ of", "domain XML sim-worker-2", "net-dumpxml sim", "k8sctl events"] {
        ensure!(places.keys().any(|place| place.starts_with(wanted)), "nobody looked at {wanted}");
    }
    ensure!(places.keys().any(|place| place.contains("state/k8s-myhome.db ")), "nobody looked at the store");
    ensure!(
        agent.read()?.0.contains("TRACE") || agent.read()?.1.contains("TRACE"),
        "not everything was logged"
    );
    let found = leaks(&Scanner::new(&canaries)?, &places);
    ensure!(found.is_empty(), "secrets where others see them:\n{}", found.join("\n"));

    phase("looking for what was planted");
    planted_secrets_are_found(&lab, &host)
}

/// A secret that a plugin is to have comes from a file, and is at home with the host agent from then on.
fn keep_for_a_plugin(host: &SimulatedHost) -> Result<Canary> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let secret = hex::encode(bytes);
    let file = host.file("plugin-secret");
    fs::write(&file, &secret)?;
    let from = format!("admin.password=@{}", file.display());
    host.k8sctl(&["plugin", "config", "hello", "--secret", &from])?;
    fs::remove_file(&file)?;
    let home = files(&host.file("state/plugins/secrets"))?;
    ensure!(home.len() == 1 && fs::read_to_string(&home[0])? == secret, "it is not at home: {home:?}");
    Ok(Canary::of_bytes("secret of a plugin", secret.as_bytes()))
}

/// The same places, with a secret in each.
fn planted_secrets_are_found(lab: &Lab, host: &SimulatedHost) -> Result<()> {
    let mut secret = [0; 32];
    fs::File::open("/dev/urandom")?.read_exact(&mut secret)?;
    let text = hex::encode(secret);
    let scanner = Scanner::new(&[Canary::of_bytes("planted", &secret)])?;

    let store = rusqlite::Connection::open(host.file("state/k8s-myhome.db"))?;
    store.execute_batch("CREATE TABLE planted (secret BLOB)")?;
    store.execute("INSERT INTO planted VALUES (?1)", [secret.as_slice()])?;
    drop(store);
    for (name, content) in in_all_forms(&secret) {
        fs::write(host.file(&format!("pool/planted-{name}")), content)?;
    }
    // At home by its name, but open to others.
    fs::create_dir_all(host.file("state/pki/planted"))?;
    fs::write(host.file("state/pki/planted/node-ca.pem"), &text)?;
    let domain = format!(
        "<domain type='test'><name>planted</name><description>{text}</description>\
         <memory>1024</memory><os><type>hvm</type></os></domain>"
    );
    let xml = host.file("planted.xml");
    fs::write(&xml, domain)?;
    host.virsh(&["define", &xml.to_string_lossy()])?;
    let processes = Processes::watch();
    let mut in_argv = lab.spawn("bash", &["-c", &format!("exec -a {text} sleep 60")], &[])?;
    let mut in_environ = lab.spawn("sleep", &["60"], &[("PLANTED", &text)])?;
    lab_tests::wait_until("both run", MINUTE, || {
        let comm = |pid: u32| Ok::<_, anyhow::Error>(fs::read_to_string(format!("/proc/{pid}/comm"))?);
        Ok(comm(in_argv.pid())?.trim() == "sleep" && comm(in_environ.pid())?.trim() == "sleep")
    })?;
    let mut places = look_around(lab, host)?;
    for (number, (what, bytes)) in processes.end()?.into_iter().enumerate() {
        places.insert(format!("{what} of process {number}"), bytes);
    }
    in_argv.kill()?;
    in_environ.kill()?;

    let found = leaks(&scanner, &places);
    let mut wanted = vec!["argv of", "environ of", "domain XML planted", "state/pki/planted/node-ca.pem"];
    wanted.push("state/k8s-myhome.db");
    let names: Vec<String> =
        in_all_forms(&secret).into_iter().map(|(name, _)| format!("pool/planted-{name} ")).collect();
    wanted.extend(names.iter().map(String::as_str));
    for wanted in wanted {
        ensure!(
            found.iter().any(|leak| leak.contains(wanted)),
            "planted in {wanted}, not found in\n{}",
            found.join("\n")
        );
    }
    Ok(())
}

/// How programs write bytes.
fn in_all_forms(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let within = [b"--", secret, b"--"].concat();
    let base64 = STANDARD.encode(&within);
    let broken = |by: &str| {
        let lines: Vec<&str> =
            base64.as_bytes().chunks(20).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        lines.join(by).into_bytes()
    };
    vec![
        ("raw", within.clone()),
        ("hex", hex::encode(secret).into_bytes()),
        ("upper-hex", hex::encode_upper(secret).into_bytes()),
        ("base64", base64.clone().into_bytes()),
        ("url-base64", URL_SAFE_NO_PAD.encode(&within).into_bytes()),
        ("lines", broken("\n")),
        ("json-lines", broken("\\n")),
        ("debug", format!("{secret:?}").into_bytes()),
        ("pretty-debug", format!("{secret:#?}").into_bytes()),
        ("escaped", secret.iter().flat_map(|byte| byte.escape_ascii()).collect()),
    ]
}

/// The first word of a process's bytes, for a message.
fn beginning(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
        .chars()
        .take(60)
        .collect()
}
