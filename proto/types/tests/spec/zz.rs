use crate::{HOME, diagnostics};
#[test]
fn explore() {
    let home = HOME.replace("# labels = { zone = \"a\" }", "labels = { zone = \"a\", rack = \"b\" }").replace("# taints", "taints").replace("# [[worker_pool]]\n# name = \"pool\"\n# count = 2\n# vcpus = 2\n# memory = \"4GiB\"\n# disk = \"30GiB\"\n# first_ip", "[[worker_pool]]\nname = \"pool\"\ncount = 2\nvcpus = 2\nmemory = \"4GiB\"\ndisk = \"30GiB\"\nfirst_ip").replace("# [image]\n# suite", "[image]\nsuite").replace("# [plugins.hello]\n# replicas = 2", "[plugins.hello]\nreplicas = 2\nlist = [\n  \"a\",\n  { b = \"c\",\n    d = [1, 2] },\n]\ntext = \"\"\"\nfoo\nbar\n\"\"\"\n");
    assert!(diagnostics(&home).is_empty(), "{:?}", diagnostics(&home));
    let mut shown = 0;
    let mut start = 0;
    for line in home.split_inclusive('\n') {
        if !line.trim().is_empty() && !line.starts_with('#') {
            for at in 0..line.len() {
                let mut texts = vec![];
                if "[]{}\"=,'".contains(&line[at..at + 1]) {
                    texts.push(format!("{}{}", &home[..start + at], &home[start + at + 1..]));
                }
                if at == 0 || at + 1 == line.len() || "[]{}\"=,' ".contains(&line[at..at + 1]) {
                    for c in ["[", "]", "{", "}", "\"", "'", "=", ",", "\"\"\"", "'''"] {
                        texts.push(format!("{}{c}{}", &home[..start + at], &home[start + at..]));
                    }
                }
                for text in texts {
                    let found = diagnostics(&text);
                    if found.len() > 1 {
                        shown += 1;
                        let lno = text[..start].matches('\n').count() + 1;
                        println!("--- {lno}: {:?}", text[start..].lines().next().unwrap_or(""));
                        for f in &found { println!("   {}", f); }
                    }
                }
            }
        }
        start += line.len();
    }
    println!("{shown}");
}
