//! `bench-figures [NAME…]`: prints the programs that give these benches or figures, one a line; all for none. Called by
//! `make bench`, which makes a lab only where it is needed.

use bench_figures::suite::suites;

fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    for suite in suites(&wanted).map_err(anyhow::Error::msg)? {
        println!("{}", suite.name());
    }
    Ok(())
}
