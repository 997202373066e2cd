include!("answers.rs");

/// Describes a config that takes 2³⁰ steps to check.
fn behave() {
    let twice = |step: usize| {
        let next = format!(r##"{{"$ref":"#/$defs/d{}"}}"##, step + 1);
        format!(r#""d{step}":{{"allOf":[{next},{next}]}}"#)
    };
    let definitions: Vec<_> = (0..30).map(twice).collect();
    let schema = format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{},"d30":{{}}}}}}"##, definitions.join(","));
    serve(|_| vec![description(&schema)]);
}
