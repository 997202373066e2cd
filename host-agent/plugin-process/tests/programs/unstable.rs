include!("answers.rs");

/// Plans an object that is another one in each process.
fn behave() {
    let object = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"p{}","namespace":"hostile"}}}}"#,
        std::process::id()
    );
    serve(|call| match call {
        1 => vec![description(r#"{"type":"object","additionalProperties":false}"#)],
        // There is nothing to say of the config.
        2 => vec![Vec::new()],
        // Of an item, `object` is field 2 and its `json` field 1; `end` is field 7, of one item.
        _ => vec![field(2, &field(1, object.as_bytes())), field(7, &[8, 1])],
    });
}
