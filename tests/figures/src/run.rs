//! Runs the benches of a program and writes what they gave: as a table, and to [`FILE`]. One figure over a limit ends
//! the run badly, when all are written.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Error, Result, ensure};
use serde_json::{Value, json};

use crate::figure::Figure;
use crate::suite::{self, Suite};

/// The results, where cargo's own files are and where they are looked for.
pub const FILE: &str = "figures.json";
/// Pairs of baseline and what is measured; `BENCH_PAIRS` in the environment sets another number.
const PAIRS: usize = 3;

/// Measures and adds its figures.
pub type Bench<C> = fn(&C, &mut Vec<Figure>) -> Result<()>;

/// Runs the benches of this program that the command line names, each found by its name; all for none. `repo` is the
/// repository, in whose `target/bench` the results are looked for. Of a bench that is to give some of its figures only,
/// `is_left_out` are the others: what was measured of them stays.
pub fn run<C>(
    suite: Suite,
    repo: &Path,
    context: &C,
    bench: impl Fn(&str) -> Bench<C>,
    is_left_out: impl Fn(&str) -> bool,
) -> Result<()> {
    // cargo has arguments of its own.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let names = suite::benches(suite, &wanted).map_err(Error::msg)?;
    let files = [results()?.join(FILE), repo.join("target/bench").join(FILE)];
    // What an earlier run measured is not taken for this one's, should it fail.
    for file in &files {
        write(file, &names, &[], &is_left_out)?;
    }
    let (mut figures, mut failed) = (Vec::new(), Vec::new());
    for name in &names {
        println!("bench {name}");
        // The others are measured all the same.
        if let Err(error) = bench(name)(context, &mut figures) {
            println!("bench {name} failed: {error:?}");
            failed.push(*name);
        }
        // What was measured stays, whatever becomes of the next one.
        for file in &files {
            write(file, &names, &figures, &is_left_out)?;
        }
    }
    print(&figures);
    files.iter().for_each(|file| println!("written to {}", file.display()));
    let verdicts: Vec<_> = figures.iter().flat_map(Figure::verdicts).collect();
    verdicts.iter().for_each(|(line, _)| println!("{line}"));
    ensure!(failed.is_empty(), "these benches failed: {}", failed.join(", "));
    let over = verdicts.iter().filter(|(_, is_within)| !is_within).count();
    ensure!(over == 0, "{over} of the figures are over their limits");
    Ok(())
}

/// How many pairs are measured.
pub fn pairs() -> Result<usize> {
    let pairs = std::env::var("BENCH_PAIRS").ok().filter(|text| !text.is_empty());
    pairs.map_or(Ok(PAIRS), |text| text.parse().with_context(|| format!("BENCH_PAIRS={text}")))
}

/// The directory of the results, `bench` under cargo's target directory.
pub fn results() -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let dir = target.join("bench");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn print(figures: &[Figure]) {
    println!("{:<26} {:>10} {:<4} {:>10} {:>7}", "figure", "value", "", "baseline", "ratio");
    let text = |number: Option<f64>| number.map_or_else(|| "-".to_owned(), |number| format!("{number:.2}"));
    for figure in figures {
        let Figure { name, value, unit, baseline } = figure;
        let ratio = text(figure.ratio());
        println!("{name:<26} {value:>10.2} {unit:<4} {:>10} {ratio:>7}", text(*baseline));
    }
}

/// Puts these figures in the place of all that these benches have in the file; what others have there stays, and what is
/// left out.
fn write(
    file: &Path,
    benches: &[&str],
    figures: &[Figure],
    is_left_out: impl Fn(&str) -> bool,
) -> Result<()> {
    let now = jiff::Timestamp::now().to_string();
    let mut kept: Vec<Value> = match fs::read_to_string(file) {
        // One that cannot be read is of no use to anybody.
        Ok(text) => serde_json::from_str(&text).unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let ours: Vec<&str> = suite::benches_of_all()
        .filter(|bench| benches.contains(&bench.name))
        .flat_map(|bench| bench.figures.iter().copied())
        .filter(|name| !is_left_out(name))
        .collect();
    kept.retain(|record| record["name"].as_str().is_some_and(|name| !ours.contains(&name)));
    let record = |figure: &Figure| {
        let (Figure { name, value, unit, baseline }, ratio) = (figure, figure.ratio());
        json!({
            "name": name, "value": value, "unit": unit, "baseline": baseline, "ratio": ratio, "measured": now,
        })
    };
    kept.extend(figures.iter().map(record));
    fs::create_dir_all(file.parent().context("a directory")?)?;
    fs::write(file, serde_json::to_string_pretty(&kept)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(file: &Path) -> Vec<String> {
        let text = fs::read_to_string(file).expect("it is there");
        let records: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        records.iter().map(|record| record["name"].as_str().expect("a name").to_owned()).collect()
    }

    #[test]
    fn each_bench_replaces_its_own_figures_and_no_others() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("bench").join(FILE);
        let none = |_: &str| false;
        let figure = |name| Figure { name, value: 1.0, unit: "ms", baseline: Some(2.0) };
        write(&file, &["up", "running"], &[figure("status"), figure("up-to-all-ready")], none)
            .expect("written");
        write(&file, &["scale"], &[figure("status-1000")], none).expect("written");
        assert_eq!(names(&file), ["status", "up-to-all-ready", "status-1000"]);
        write(&file, &["up"], &[], none).expect("written");
        assert_eq!(names(&file), ["status", "status-1000"]);
        write(&file, &["running"], &[], none).expect("written");
        assert_eq!(names(&file), ["status-1000"]);
        let text = fs::read_to_string(&file).expect("it is there");
        let records: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        assert_eq!(records[0]["ratio"], 0.5);
        let other = |name: &str| name == "status-1000";
        write(&file, &["scale"], &[figure("status-10")], other).expect("written");
        assert_eq!(names(&file), ["status-1000", "status-10"]);
        fs::write(&file, "torn").expect("written");
        write(&file, &["scale"], &[figure("status-1000")], none).expect("written");
        assert_eq!(names(&file), ["status-1000"]);
    }
}
