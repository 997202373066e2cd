//! `bench-plot FIGURES SVG`: draws what agents cost, of the figures that `make bench` has written. Called by `make plot`.

use std::fs;

use anyhow::{Context as _, Result, bail};
use bench_figures::plot;
use serde_json::Value;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [figures, picture] = args.as_slice() else { bail!("usage: bench-plot FIGURES SVG") };
    let text = fs::read_to_string(figures)
        .with_context(|| format!("cannot read {figures}, which `make bench BENCH=scale` writes"))?;
    let records: Vec<Value> = serde_json::from_str(&text).with_context(|| figures.clone())?;
    fs::write(picture, plot::svg(&records)?).with_context(|| picture.clone())?;
    println!("written to {picture}");
    Ok(())
}
