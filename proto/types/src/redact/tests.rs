use super::*;
use proptest::prelude::*;

const CANARY: &str = "kanarienvogel0123456789";

#[test]
fn no_canary_gets_through_in_whatever_it_stands() {
    let texts = [
        format!("-----BEGIN EC PRIVATE KEY-----\n{CANARY}\n-----END EC PRIVATE KEY-----\n"),
        format!("-----BEGIN PRIVATE KEY-----\\n{CANARY}\\n"),
        format!("    client-key-data: {CANARY}\n"),
        format!("users:\n- user:\n    token: {CANARY}\n"),
        format!(r#"{{"password": "{CANARY}", "a": 1}}"#),
        format!(r#"{{"password": "with \" in it {CANARY}"}}"#),
        format!(r#"{{"line": "{{\"adminToken\":\"{CANARY}\"}}"}}"#),
        format!("admin_password = '{CANARY} and more'"),
        format!("DB_PASSWORD={CANARY}"),
        format!("kubeadm join --token {CANARY} --x"),
        format!("kubeadm init --certificate-key={CANARY}"),
        format!("GET https://x/?access_token={CANARY}&a=b"),
        format!("http_proxy=http://user:{CANARY}@proxy:3128/"),
        format!("https://{CANARY}@github.com/x"),
        format!("Authorization: Bearer {CANARY}"),
        format!("sent bearer {CANARY}"),
        format!("eyJhbGciOiJIUzI1NiJ9.{CANARY}.sig{CANARY}"),
        format!("LS0tLS1CRUdJTi{CANARY}"),
        format!("Authorization: Basic {CANARY}"),
        format!("tokens = [\"a\", \"{CANARY}\"]"),
        format!("{{\"secrets\": [\n  \"a\",\n  \"{CANARY}\"\n]}}"),
        format!("secret: {{a: b, c: {CANARY}}}"),
        format!("  adminPassword: |\n    {CANARY}\n    {CANARY}\n"),
        format!("password: \"not ended {CANARY}\nnext"),
        format!("{}{CANARY}\n-----END RSA PRIVATE KEY-----", "A".repeat(40)),
        format!("<graphics><password>{CANARY}</password></graphics>"),
        format!("<auth-token kind='a'>{CANARY}</auth-token>"),
        format!("<password>\n  a\n  {CANARY}\n</password>"),
        format!("<q:password><![CDATA[a<b {CANARY}]]></q:password>"),
        format!("DB_PASSWORD=x7&kJ29;{CANARY}"),
        format!("export DB_PASSWORD=&{CANARY}"),
        format!("DB_PASS={CANARY} DBpwd=a db.pass='{CANARY}' dbPass: {CANARY}"),
        format!("passphrase: correct horse {CANARY}"),
        format!("x\nPASSWORD=correct horse {CANARY}\r\n"),
        format!("  password: |\n\n    a\n\n    {CANARY}\n"),
        format!("password: |2-\n    {CANARY}\n"),
        format!("\"password\": >\r\n    {CANARY}\r\n"),
        format!("- password: !!str |  # hm\n      {CANARY}\n"),
        format!("tokens:\n  - {CANARY}\n"),
        format!("tokens: # of all\n- a\n-\n  {CANARY}\n"),
        format!("password:\n  {CANARY}\n"),
        format!("password = \"\"\"\na \"quoted\"\n{CANARY}\n\"\"\""),
        format!(r#"{{"credentials":{{"registry":{{"user":{{"a":"b}}"}},"blob":"{CANARY}"}}}}}}"#),
        format!("{{\"secret\": {{\n  \"a\": {{\n    \"b\": [{{\n \"c\": \"{CANARY}\"\n}}]\n}}\n}}}}"),
        format!("tokens = [\"a]b\", \"{CANARY}\"]"),
        format!("tokens = [don't, \"{CANARY}\"]"),
        format!(r#"err="a: {{\"x\":\"{{\\\"password\\\":\\\"a b {CANARY}\\\"}}\"}}""#),
        format!("http://user:pa/ss{CANARY}@proxy:3128"),
        format!("http://user:p@ss{CANARY}@h"),
        format!("token: abcdef.0123456789abcdef-{CANARY}"),
        format!("Cookie: theme=\"dark\"; session={CANARY}"),
        format!("> Authorization: Digest username=\"a\", response=\"{CANARY}\""),
        format!("curl -H 'Authorization: Token {CANARY}' x"),
        format!(r#"{{"Authorization":"Token {CANARY}"}}"#),
        format!("-----BEGIN PGP PRIVATE KEY BLOCK-----\n{CANARY}\n-----END PGP PRIVATE KEY BLOCK-----"),
        format!("{}\n{CANARY}==\n-----END PRIVATE KEY-----", "A".repeat(64)),
        format!(
            "10:00 kubelet {}\n10:00 kubelet {CANARY}==\n10:00 kubelet -----END PRIVATE KEY-----",
            "A".repeat(64)
        ),
        format!("{}\\n{CANARY}==\\n-----END PRIVATE KEY-----\\n", "A".repeat(64)),
        format!("Env:[]EnvVar{{EnvVar{{Name:A,Value:{CANARY} b,c}},ValueFrom:nil,}},}} start failed"),
        format!("Container{{Name:a,Command:[sh -c {CANARY}],Args:[[{CANARY}] x],WorkingDir:,}}"),
        format!(r#"{{"name":"DB_PASSWORD","value":"{CANARY}"}}"#),
        format!("- name: DB_PASSWORD\n  value: some {CANARY}\n"),
        format!("Config {{ token: Some(\"a b {CANARY}\"), n: 1 }}"),
        format!("password: 'it''s {CANARY}'"),
        format!("values:\\n  adminPassword: two words {CANARY}\\nend"),
        format!(r#"{{"auths":{{"reg":{{"auth":"{CANARY}"}}}}}}"#),
        format!("auth = \"{CANARY}\""),
        format!("registryAuth: {CANARY}"),
        format!("private key: {CANARY}"),
        format!("PRIVATE KEY = {CANARY}"),
        format!(r#"{{"api key": "{CANARY}"}}"#),
        format!("accessKey: {CANARY}"),
        format!("AccountKey={CANARY};x"),
        format!("encryption_key={CANARY}"),
        format!("psk=\"{CANARY}\""),
        format!("client-key: {CANARY}"),
        format!("tls.key: {CANARY}"),
        format!(r#"{{"kind":"Secret","data":{{"foo":"{CANARY}"}}}}"#),
        format!(r#"{{"apiVersion":"v1","data":{{"foo":"{CANARY}"}},"kind":"Secret"}}"#),
        format!(r#"{{"a":"{{\"kind\":\"Secret\",\"stringData\":{{\"foo\":\"{CANARY}\"}}}}"}}"#),
        format!("kind: Secret\ndata:\n  foo: {CANARY}\n"),
        format!("- data:\n    foo: {CANARY}\n  kind: Secret\n"),
        format!("\"apiVersion: v1\\nkind: Secret\\ndata:\\n  foo: {CANARY}\\n  bar: {CANARY}\\n\""),
        format!("a:\\nauth: {CANARY}\\npsk={CANARY}\\ntls.key: {CANARY}"),
        format!("map[apiVersion:v1 data:map[bar:YWJj foo:{CANARY}] kind:Secret]"),
        format!("{{\"kind\":\"Secret\",\"data\":{{\"a\":\"{}{CANARY}\"}},\"b\":1}}", "x".repeat(40_000)),
        format!("ghp_{CANARY}"),
        format!("github_pat_{CANARY}"),
        format!("GET https://x/?a=b&sig={CANARY}&c=d"),
        format!("https://x/?X-Amz-Signature={CANARY}"),
        format!("machine x login u password {CANARY}"),
        format!("HTTPHeaders:[]HTTPHeader{{HTTPHeader{{Name:Authorization,Value:Bearer {CANARY},}},}},"),
    ];
    for text in texts {
        let clean = redact(&text);
        assert!(!clean.contains(CANARY) && clean.contains(MARK), "{text}\n{clean}");
    }
    assert!(!redact("token abcdef.0123456789abcdef").contains("0123456789abcdef"));
    let key = "0123456789abcdef".repeat(4);
    assert!(!redact(&format!("[upload-certs] Using certificate key:\n{key}\n")).contains(&key));
}

#[test]
fn what_is_no_secret_stays() {
    let texts = [
        "2026-11-24T04:11:50Z node k8s-worker-1: kubeadm: exit status 1",
        "https://registry.k8s.io/v2/pause:3.9",
        "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----",
        "<mac address='52:54:00:00:00:01'/>",
        "<secret type='ceph' usage='pool'/>\n<a>b</a>",
        "the compass bypass=1 passed: 3",
        "kubeadm join --x <token>",
        "unix:///run/containerd/containerd.sock, a@b",
        "the author: somebody; authority: none; a key: 1",
        r#"{"kind":"ConfigMap","data":{"a":"b"}}"#,
        "kind: SecretProviderClass\ndata: x",
        "the password is wrong, login again",
        "open /certs/tls.key: no such file or directory",
        "tls: failed to parse private key: asn1: structure error",
        r#"{"msg":"parse private key: EOF","level":"error","ts":1}"#,
        "--client-cert-auth --trusted-ca-file=/x --anonymous-auth=false",
        "pre-auth check failed, WPA2-PSK CCMP",
        r#"tls-info: client-cert-auth = true, "client-cert-auth":true"#,
    ];
    for text in texts {
        assert_eq!(redact(text), text);
    }
}

#[test]
fn what_stands_around_a_secret_stays() {
    for (text, clean) in [
        ("a:\n  password: |\n    x\n\n    y\n\n  b: 1\n", "a:\n  password: (redacted)\n\n  b: 1\n"),
        ("- tokens:\n  - a\n  b: 1", "- tokens:(redacted)\n  b: 1"),
        ("token: a b\r\nnext", "token: (redacted)\r\nnext"),
        (r#"{"token":12,"n":1}"#, r#"{"token":"(redacted)","n":1}"#),
        (r#"{"token":{"a":["]"]},"n":1}"#, r#"{"token":"(redacted)","n":1}"#),
        (r#"{"a":"{\"token\":\"b \\\"c\"}","n":1}"#, r#"{"a":"{\"token\":\"(redacted)\"}","n":1}"#),
        ("x token='a b', n='1'", "x token='(redacted)', n='1'"),
        ("<a><password>\n b\n</password><c>d</c></a>", "<a><password>\n (redacted)</password><c>d</c></a>"),
        ("https://u:p@h/x?a=b", "https://(redacted)h/x?a=b"),
    ] {
        assert_eq!(redact(text), clean);
        assert_eq!(redact(clean), clean);
    }
}

#[test]
fn a_secret_of_kubernetes_keeps_its_shape_and_what_is_in_base64_is_found() {
    let secret =
        serde_json::json!({"kind": "Secret", "data": {"a": CANARY}, "type": "Opaque", "n": [{"b": 1}]});
    let clean = redact_texts(&serde_json::json!({ "items": [secret] }));
    assert_eq!(clean["items"][0]["data"], MARK);
    let text = format!("{clean:#}");
    assert_eq!(redact(&text), text);
    assert_eq!((&clean["items"][0]["type"], &clean["items"][0]["n"][0]["b"]), (&"Opaque".into(), &1.into()));

    // `base64` of a kubeconfig and of a key, which begin at one of three places of a group.
    for inner in [
        "dXNlcnM6Ci0gdXNlcjoKICAgIGNsaWVudC1rZXktZGF0YTogTFMwdEtBTkFSSUUK",
        "YTogeAogIGNsaWVudC1rZXktZGF0YTogTFMwdEtBTkFSSUUK",
        "ICBjbGllbnQta2V5LWRhdGE6IExTMHRLQU5BUklFCg==",
        "ZWggLS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS0tLS0tCktBTkFSSUUK",
    ] {
        let clean = redact(&format!("config: {inner}, x")).into_owned();
        assert!(clean.ends_with(&format!("{MARK}, x")), "{inner}: {clean}");
    }
}

/// As whoever writes a node's log may wish.
#[test]
fn no_text_takes_for_ever() {
    for piece in [
        "token=a ",
        "kind: Secret\ndata: {\n",
        "UFJJVkFURSBLRVkt",
        "\"token\":\"a\",",
        "token=[\n",
        "token={\n",
        "token=\"\n",
        "password:\n",
        "-----END PRIVATE KEY-----\n",
        "AAAAAAAAAAAAAAAAAAAAAAAA\n",
    ] {
        let text = piece.repeat((1 << 20) / piece.len());
        let began = std::time::Instant::now();
        redact(&text);
        // A hundredth of it is usual; what is not in proportion takes hours.
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "{piece:?}");
    }
}

#[test]
fn a_long_secret_is_no_list_that_does_not_end() {
    let long = "x".repeat(40_000);
    let text = serde_json::json!({"data": {"a": long}, "kind": "Secret", "type": "Opaque"}).to_string();
    assert_eq!(redact(&text), r#"{"data":"(redacted)","kind":"Secret","type":"Opaque"}"#);
}

#[test]
fn json_stays_json() {
    let text = serde_json::json!({
        "a": [{"password": CANARY}, {"inner": format!("{{\"token\":\"{CANARY}\"}}")}],
        "secret": "with \"quotes\" and \\ in it",
        "n": 1,
    });
    let clean = redact(&text.to_string()).into_owned();
    let read: Value = serde_json::from_str(&clean).unwrap_or_else(|error| panic!("{error}: {clean}"));
    assert!(!clean.contains(CANARY), "{clean}");
    assert_eq!((&read["n"], &read["a"][0]["password"]), (&serde_json::json!(1), &serde_json::json!(MARK)));
}

#[test]
fn a_document_can_be_gone_through_again() {
    let document = serde_json::json!({ "evidence": format!("token: {CANARY}"), "n": 1 });
    let clean = format!("{:#}", redact_texts(&document));
    assert_eq!(redact(&clean), clean);
}

#[test]
fn in_a_document_lines_are_lines() {
    let output = format!("values:\n  adminPassword: |\n    {CANARY}\nend\n");
    let clean = redact_texts(&serde_json::json!({ "evidence": [output], "n": 1 }));
    assert!(!clean.to_string().contains(CANARY), "{clean}");
    assert!(clean["evidence"][0].as_str().is_some_and(|text| text.ends_with("end\n")), "{clean}");
    assert_eq!(clean["n"], 1);
}

#[test]
fn of_a_document_without_texts_the_shape_stays() {
    let config = serde_json::json!({"motd": CANARY, "list": [CANARY, 2], "on": true, "deep": {"x": CANARY}});
    let clean = without_texts(&config);
    assert!(!clean.to_string().contains(CANARY));
    assert_eq!((&clean["on"], &clean["list"][1]), (&serde_json::json!(true), &serde_json::json!(2)));
}

proptest! {
    #[test]
    fn a_canary_behind_a_secrets_name_never_gets_through(
        before in "[ -~\n]{0,40}",
        prefix in "[a-zA-Z_]{0,8}",
        name in "(password|secret|token|apiKey|private-key)",
        between in "( = |: |=|\":\"|: ')",
        after in "[ -~\n]{0,40}",
    ) {
        let text = format!("{before}\n{prefix}{name}{between}{CANARY}{after}");
        prop_assert!(!redact(&text).contains(CANARY), "{}", redact(&text));
    }

    #[test]
    fn whatever_a_text_is_made_of_it_is_gone_through(
        text in r#"((pass|token|cookie)(:|=|": |\\":)|[\\"'\[\]{}()|>#:=,<n \r\n\tä€-]){0,60}"#,
    ) {
        redact(&text);
    }
}
