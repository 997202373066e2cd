//! Malformed input for all that reads what a plugin or a stranger wrote: plans, manifests, `plugin.toml`, archives. No
//! panic, no hang, and memory that stays where it is. `FUZZ_SECONDS` is how long plans take, each of the others a quarter of
//! that; `FUZZ_SEED` is what comes, and `FUZZ_ONLY=plan:17` one input again.

#[path = "fuzz/corpus.rs"]
mod corpus;
#[path = "fuzz/random.rs"]
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8sctl_proto::parts;
use k8sctl_proto::plugin::v1::PlanResponse;
use plugin_package::{Manifest, PLATFORM, Parts, assemble, pack, unpack};
use plugin_plan::remote::objects_of;
use plugin_plan::remote::yaml::documents;
use plugin_plan::{CheckContext, RemoteManifest, check_plan};
use plugin_process::PlanReader;
use prost::Message as _;
use random::Random;

/// Longest that one input may take, on a machine that does other things as well.
const SLOW: Duration = Duration::from_secs(10);
/// Fewest inputs of each target, however long they take.
const FEWEST: u64 = 10;
/// Most resident memory in the end, in MiB.
const RESIDENT: u64 = 512;

type Make = Box<dyn Fn(&mut Random) -> Vec<u8>>;
type Read = Box<dyn Fn(&[u8])>;

/// Something that reads, and what it is given.
struct Target {
    name: &'static str,
    make: Make,
    read: Read,
}

fn targets() -> Vec<Target> {
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).expect("cargo sets it for tests");
    let manifests = corpus::manifests(&folder.join("../.."));
    let archive = archive();
    let scratch = tempfile::tempdir().expect("a folder");
    vec![
        Target { name: "plan", make: Box::new(plan), read: Box::new(read_plan) },
        Target {
            name: "yaml",
            make: Box::new(move |random: &mut Random| {
                let place = random.below(manifests.len());
                changed(random, &manifests[place])
            }),
            read: Box::new(read_yaml),
        },
        Target {
            name: "manifest",
            make: Box::new(|random: &mut Random| changed(random, corpus::MANIFEST.as_bytes())),
            read: Box::new(|bytes: &[u8]| drop(Manifest::parse(&String::from_utf8_lossy(bytes)))),
        },
        Target {
            name: "archive",
            make: Box::new(move |random: &mut Random| changed(random, &archive)),
            read: Box::new(move |bytes: &[u8]| {
                let file = scratch.path().join("fuzzed.tar.zst");
                std::fs::write(&file, bytes).expect("written");
                let into = tempfile::tempdir_in(scratch.path()).expect("a folder");
                drop(unpack(&file, into.path()));
            }),
        },
    ]
}

#[test]
fn malformed_input_harms_nobody() {
    let seed: u64 = setting("FUZZ_SEED").unwrap_or(1);
    let usual = if std::env::var("CI").is_ok_and(|ci| ci == "true") { 60 } else { 10 };
    let seconds: u64 = setting("FUZZ_SECONDS").unwrap_or(usual);
    println!("fuzz: FUZZ_SEED={seed} FUZZ_SECONDS={seconds}");
    let targets = targets();
    if let Ok(only) = std::env::var("FUZZ_ONLY") {
        let (name, number) = only.split_once(':').expect("FUZZ_ONLY=TARGET:NUMBER");
        let target = targets.iter().find(|target| target.name == name).expect("a target of this test");
        return one(target, seed, number.parse().expect("a number"));
    }
    for target in &targets {
        let share = Duration::from_secs(seconds) / if target.name == "plan" { 1 } else { 4 };
        let began = Instant::now();
        let mut number = 0;
        while began.elapsed() < share || number < FEWEST {
            one(target, seed, number);
            number += 1;
        }
        println!("fuzz: {}: {number} inputs in {:?}", target.name, began.elapsed());
    }
    let resident = resident();
    assert!(resident <= RESIDENT, "{resident} MiB are resident, expected at most {RESIDENT}");
}

fn one(target: &Target, seed: u64, number: u64) {
    let again = || format!("FUZZ_SEED={seed} FUZZ_ONLY={}:{number}", target.name);
    let mut random = Random::of(seed, target.name, number);
    let input = (target.make)(&mut random);
    let began = Instant::now();
    let read = catch_unwind(AssertUnwindSafe(|| (target.read)(&input)));
    assert!(read.is_ok(), "a panic: {}", again());
    let took = began.elapsed();
    assert!(took < SLOW, "it took {took:?}: {}", again());
}

fn changed(random: &mut Random, sound: &[u8]) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    random.mutate(&mut bytes, sound.len() + (64 << 10));
    bytes
}

/// Messages behind each other, each with its length before it: one of them changed, or the whole.
fn plan(random: &mut Random) -> Vec<u8> {
    let items = corpus::plan();
    let end = corpus::end(items.len());
    let message = |item| PlanResponse { item: Some(item) }.encode_to_vec();
    let mut messages: Vec<Vec<u8>> = items.into_iter().chain([end]).map(message).collect();
    let whole = random.below(4) == 0;
    if !whole {
        let place = random.below(messages.len());
        random.mutate(&mut messages[place], 64 << 10);
    }
    let mut bytes = Vec::new();
    for message in messages {
        // Of bytes there are fewer than the tests' memory.
        prost::encode_length_delimiter(message.len(), &mut bytes).expect("a vector grows");
        bytes.extend(message);
    }
    if whole {
        random.mutate(&mut bytes, 256 << 10);
    }
    bytes
}

fn read_plan(mut bytes: &[u8]) {
    let mut reader = PlanReader::new();
    while let Ok(length) = prost::decode_length_delimiter(&mut bytes) {
        let Some((message, behind)) = bytes.split_at_checked(length) else { return };
        bytes = behind;
        if !parts::is_within::<PlanResponse>(message) {
            return;
        }
        let Ok(response) = PlanResponse::decode(message) else { return };
        if reader.take(response).is_err() {
            return;
        }
        if bytes.is_empty() {
            break;
        }
    }
    let Ok((plan, _)) = reader.end() else { return };
    let manifest = Manifest::parse(corpus::MANIFEST).expect("it is sound");
    let fetched: BTreeMap<String, Vec<u8>> = corpus::bodies();
    let context = CheckContext {
        manifest: &manifest,
        fetched: &fetched,
        without_bodies: false,
        secrets: &BTreeSet::new(),
        accounts: &BTreeSet::new(),
    };
    drop(check_plan(plan, &context));
}

fn read_yaml(bytes: &[u8]) {
    if documents(bytes).is_err() {
        return;
    }
    let remote = RemoteManifest { namespace: "fuzz".to_owned(), ..RemoteManifest::default() };
    drop(objects_of(&remote, bytes, &[]));
}

/// Of a package.
fn archive() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, out) = (folder.path().join("source"), folder.path().join("package"));
    std::fs::create_dir_all(source.join("objects")).expect("made");
    for (name, content) in [("plugin.toml", corpus::MANIFEST), ("objects/a.yaml", corpus::YAML)] {
        std::fs::write(source.join(name), content).expect("written");
    }
    let program = folder.path().join("program");
    std::fs::write(&program, b"\x7fELF").expect("written");
    let programs = [(PLATFORM.to_owned(), program)];
    let schema = serde_json::json!({"type": "object", "additionalProperties": false});
    assemble(&Parts { source: &source, out: &out, programs: &programs, schema: &schema }).expect("a package");
    let file = folder.path().join("fuzzed.tar.zst");
    pack(&out, &file).expect("packed");
    std::fs::read(file).expect("read")
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// In MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("of this process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kib >> 10
}

#[test]
fn the_sound_plan_gets_as_far_as_the_check() {
    let items = corpus::plan();
    let end = corpus::end(items.len());
    let mut reader = PlanReader::new();
    for item in items.into_iter().chain([end]) {
        reader.take(PlanResponse { item: Some(item) }).expect("it is sound");
    }
    let (plan, remarks) = reader.end().expect("it is whole");
    assert_eq!((plan.objects.len(), plan.remotes.len(), plan.secrets.len(), remarks.len()), (4, 1, 1, 1));
    documents(corpus::YAML.as_bytes()).expect("it is sound");
    Manifest::parse(corpus::MANIFEST).expect("it is sound");
}
