//! Values of secrets: into the cluster, and nowhere else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use host_plugins::SCHEMA;
use host_store::Store;
use plugin_plan::SecretRef;
use serde_json::{Value, json};

use crate::Bench;
use crate::common::plans::{plan, secret};

fn named(key: &str) -> SecretRef {
    SecretRef { handle: "admin".to_owned(), key: key.to_owned() }
}

pub async fn a_value_is_in_the_cluster_and_nowhere_else(bench: &mut Bench) {
    const VALUE: &str = "correct-horse-battery-staple";
    let folder = tempfile::tempdir().expect("a folder");
    let mut keeper = bench.installation("keeper");
    keeper.store = Store::open(&folder.path().join("store.db"), &[SCHEMA]).expect("a database");
    keeper.secrets.0.insert(named("password"), VALUE.into());
    keeper.secrets.0.insert(named("bytes"), vec![0, 159, 146, 150]);
    let object = secret(
        "default",
        "keeper",
        json!({
            "password": named("password").placeholder(), "bytes": named("bytes").placeholder(), "user": "admin",
        }),
    );
    let with = |object| plan("keeper").object(object).secret(&named("password")).secret(&named("bytes"));
    let wanted = with(object.clone()).checked();
    let (applied, said) = keeper.lines(keeper.apply(&wanted)).await;
    applied.expect("it installs");
    let live = bench.live(&object).await.expect("it is there");
    assert_eq!(live["data"]["password"], STANDARD.encode(VALUE));
    assert_eq!(live["data"]["bytes"], STANDARD.encode([0, 159, 146, 150]), "it need not be text");
    assert_eq!(live["data"]["user"], STANDARD.encode("admin"));
    assert_eq!(keeper.apply(&wanted).await.expect("again").written, 0);

    // A refusal of the server, which repeats values where it can.
    let mut wrong = object.clone();
    wrong["metadata"]["name"] = json!("keeper-wrong");
    wrong["type"] = json!("kubernetes.io/tls");
    let (refused, more) = keeper.lines(keeper.apply(&with(wrong).checked())).await;
    let refused = refused.expect_err("it has no certificate");
    assert_eq!(refused.id, "PLUGIN-OBJECT-INVALID", "{refused}");

    let told = format!("{said:?}{more:?}{refused:?}");
    let encoded = STANDARD.encode(VALUE);
    for file in std::fs::read_dir(folder.path()).expect("a folder") {
        let bytes = std::fs::read(file.expect("a file").path()).expect("it is read");
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(VALUE) && !text.contains(&encoded), "the database has it");
    }
    assert!(!told.contains(VALUE) && !told.contains(&encoded), "{told}");
}

pub async fn another_value_is_written(bench: &mut Bench) {
    let mut rotates = bench.installation("rotates");
    let object = secret("default", "rotates", json!({"password": named("password").placeholder()}));
    let wanted = plan("rotates").object(object.clone()).secret(&named("password")).checked();
    for value in ["first", "second"] {
        rotates.secrets.0.insert(named("password"), value.into());
        assert_eq!(rotates.apply(&wanted).await.expect("it is applied").written, 1, "the plan is the same");
        let live = bench.live(&object).await.expect("it is there");
        assert_eq!(live["data"]["password"], STANDARD.encode(value));
    }
    // A key that the plan has no more goes, whether its value was the host's or the plan's own.
    let more =
        secret("default", "rotates", json!({"password": named("password").placeholder(), "user": "admin"}));
    let of = |object: &Value| plan("rotates").object(object.clone()).secret(&named("password")).checked();
    for (object, users) in [(&more, Some(STANDARD.encode("admin"))), (&object, None)] {
        assert_eq!(rotates.apply(&of(object)).await.expect("it is applied").written, 1);
        let live = bench.live(object).await.expect("it is there");
        assert_eq!(live["data"]["user"].as_str(), users.as_deref());
        assert_eq!(live["data"]["password"], STANDARD.encode("second"));
    }
    // Whoever looks after it writes another value, too.
    rotates.secrets.0.insert(named("password"), "third".into());
    let engine = rotates.engine();
    let look = engine.look(&wanted).await.expect("it is looked at");
    let corrected = engine.correct(&wanted, &look).await.expect("it is written");
    assert_eq!(corrected.done, ["undid the former value of /data/password in v1 Secret default/rotates"]);
    let live = bench.live(&object).await.expect("it is there");
    assert_eq!(live["data"]["password"], STANDARD.encode("third"));
    rotates.secrets.0.clear();
    let missing = rotates.apply(&wanted).await.expect_err("nobody knows it");
    assert_eq!(missing.id, "PLUGIN-SECRET", "{missing}");
}
