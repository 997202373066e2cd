//! The tutorial for authors of plugins does what it says: each block of `docs/plugins/writing.md` that is marked with
//! `<!-- run -->` is run, one after the other in one folder, and each marked with `<!-- file NAME -->` is what that file
//! becomes. No block with something to type is without a mark.

#![allow(clippy::unwrap_used)]

mod fake;
mod harness;

use harness::programs::{Workbench, root};

/// A marked block of the tutorial.
#[derive(Debug, PartialEq, Eq)]
enum Block {
    Run(String),
    File(String, String),
}

/// All of them, in their order.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(mark) = line.trim().strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) else {
            continue;
        };
        let file = mark.strip_prefix("file ");
        if mark != "run" && file.is_none() {
            continue;
        }
        let fence = lines.next().unwrap_or_default();
        assert!(fence.starts_with("```"), "a block stands behind {line:?}, not {fence:?}");
        let body: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
        blocks.push(match file {
            Some(name) => Block::File(name.to_owned(), body.join("\n") + "\n"),
            None => Block::Run(commands(&body)),
        });
    }
    blocks
}

/// Where lines begin with a prompt, the others are what is printed.
fn commands(body: &[&str]) -> String {
    let prompted: Vec<_> = body.iter().filter_map(|line| line.strip_prefix("$ ")).collect();
    if prompted.is_empty() { body.join("\n") } else { prompted.join("\n") }
}

/// Commands in blocks without a mark.
fn left_out(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut lines, mut before) = (text.lines(), "");
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            let block: Vec<_> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            let is_typed = |line: &&str| ["$ ", "k8sctl ", "cargo "].iter().any(|it| line.starts_with(it));
            if before != "<!-- run -->" {
                found.extend(block.into_iter().filter(is_typed));
            }
        }
        before = line;
    }
    found
}

#[tokio::test]
async fn every_command_of_the_tutorial_runs() {
    let page = std::fs::read_to_string(root().join("docs/plugins/writing.md")).unwrap();
    assert_eq!(left_out(&page), Vec::<&str>::new(), "nobody runs these");
    let blocks = blocks(&page);
    let count = blocks.iter().filter(|block| matches!(block, Block::Run(_))).count();
    assert!(count >= 7, "only {count} blocks are run: {blocks:#?}");
    let bench = Workbench::new().await;
    for block in blocks {
        match block {
            Block::File(name, text) => std::fs::write(bench.path(&name), text).unwrap(),
            Block::Run(script) => {
                let run = bench.script(&script).await;
                assert_eq!(run.code, 0, "{script}\n{}\n{}", run.out, run.err);
            }
        }
    }
}

#[test]
fn marked_blocks_are_found() {
    let text = "# T\n\n<!-- run -->\n```\n$ a\nprinted\n$ b\n```\n\n```\nnot c\n```\n<!-- file x/y -->\n```toml\nd = 1\n```\n\
                <!-- run -->\n```sh\ne\nf\n```\n";
    let expected = [
        Block::Run("a\nb".to_owned()),
        Block::File("x/y".to_owned(), "d = 1\n".to_owned()),
        Block::Run("e\nf".to_owned()),
    ];
    assert_eq!(blocks(text), expected);
    assert_eq!(left_out(text), Vec::<&str>::new());
    assert_eq!(left_out("# T\n```\n$ a\nb\n```\n<!-- run -->\n```\n$ c\n```\n"), ["$ a"]);
}
