//! Secrets as canaries: known bytes, and a scanner that finds them in whatever form a careless program writes bytes:
//! as they are, in hex, in base64 (broken into lines or not), as Rust's `Debug` shows them.
//!
//! It only looks. What is a secret, and where none may be, is the test's business.

use std::collections::BTreeSet;

use aho_corasick::AhoCorasick;
use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes of a secret that are enough to know it by.
const ENOUGH: usize = 32;
/// What stands in a DER before the 32 bytes of an elliptic key: `version 1`, then an octet string of that length.
const EC_KEY: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];

/// One secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Canary {
    name: String,
    forms: BTreeSet<Vec<u8>>,
}

/// Looks for canaries.
#[derive(Debug)]
pub struct Scanner {
    automaton: AhoCorasick,
    /// By pattern.
    names: Vec<String>,
}

impl Canary {
    /// A secret that is bytes.
    pub fn of_bytes(name: impl Into<String>, secret: &[u8]) -> Self {
        // In the middle there is no format's common beginning or end.
        let begin = secret.len().saturating_sub(ENOUGH) / 2;
        let secret = &secret[begin..secret.len().min(begin + ENOUGH)];
        let mut forms = BTreeSet::from([
            secret.to_vec(),
            escaped(secret),
            secret.escape_ascii().to_string().into_bytes(),
        ]);
        forms.extend([hex::encode(secret), hex::encode_upper(secret)].map(String::into_bytes));
        for separator in [", ", ","] {
            let list: Vec<String> = secret.iter().map(u8::to_string).collect();
            forms.insert(list.join(separator).into_bytes());
        }
        // The secret may begin at any of the three places of a group of base64.
        for skipped in 0..3 {
            let whole = (secret.len() - skipped) / 3 * 3;
            let text = STANDARD.encode(&secret[skipped..skipped + whole]);
            forms.insert(text.replace('+', "-").replace('/', "_").into_bytes());
            forms.insert(text.into_bytes());
        }
        Self { name: name.into(), forms }
    }

    /// A secret that is printable text.
    pub fn of_text(name: impl Into<String>, secret: &str) -> Self {
        let mut canary = Self::of_bytes(name, secret.as_bytes());
        let begin = secret.len().saturating_sub(ENOUGH) / 2;
        canary.forms.insert(secret.as_bytes()[begin..].iter().take(ENOUGH).copied().collect());
        canary
    }

    /// The private key in a DER: PKCS#8, SEC1 or PKCS#1.
    pub fn of_key(name: impl Into<String>, der: &[u8]) -> Self {
        let found = der.windows(EC_KEY.len()).position(|window| window == EC_KEY).map(|at| at + EC_KEY.len());
        // The middle of an RSA key is private.
        let begin = found.unwrap_or(der.len() / 2);
        Self::of_bytes(name, &der[begin..der.len().min(begin + ENOUGH)])
    }

    /// Every private key that a file holds as PEM, also with escaped line ends, also in a kubeconfig.
    pub fn of_file(name: &str, content: &[u8]) -> Result<Vec<Self>> {
        let text = String::from_utf8_lossy(content).replace("\\n", "\n");
        let mut found = Vec::new();
        for part in text.split("-----BEGIN ").skip(1) {
            let Some((label, rest)) = part.split_once("-----\n") else { continue };
            if !label.ends_with("PRIVATE KEY") {
                continue;
            }
            let body: String = rest.lines().take_while(|line| !line.starts_with("-----")).collect();
            let der = STANDARD.decode(body).with_context(|| format!("a private key in {name}"))?;
            found.push(Self::of_key(format!("private key {} of {name}", found.len() + 1), &der));
        }
        for part in text.split("client-key-data: ").skip(1) {
            let value = part.split_whitespace().next().unwrap_or_default().trim_matches('"');
            let pem = STANDARD.decode(value).with_context(|| format!("client-key-data in {name}"))?;
            found.push(Self::of_text(format!("client-key-data of {name}"), value));
            found.extend(Self::of_file(&format!("client-key-data of {name}"), &pem)?);
        }
        Ok(found)
    }
}

impl Scanner {
    /// For these canaries.
    pub fn new(canaries: &[Canary]) -> Result<Self> {
        ensure!(!canaries.is_empty(), "there is nothing to look for");
        let all = || canaries.iter().flat_map(|canary| canary.forms.iter().map(|form| (&canary.name, form)));
        Ok(Self {
            automaton: AhoCorasick::new(all().map(|(_, form)| form))?,
            names: all().map(|(name, _)| name.clone()).collect(),
        })
    }

    /// Names of the canaries in these bytes, as they are or with all line ends and spaces taken out.
    pub fn find(&self, bytes: &[u8]) -> BTreeSet<&str> {
        let mut squeezed = Vec::with_capacity(bytes.len());
        let mut rest = bytes;
        while let Some((first, others)) = rest.split_first() {
            match (first, others.first()) {
                (b'\\', Some(b'n' | b'r')) => rest = &others[1..],
                (byte, _) => {
                    if !byte.is_ascii_whitespace() {
                        squeezed.push(*byte);
                    }
                    rest = others;
                }
            }
        }
        let names = [bytes, &squeezed].into_iter().flat_map(|bytes| {
            self.automaton
                .find_overlapping_iter(bytes)
                .map(|found| self.names[found.pattern().as_usize()].as_str())
        });
        names.collect()
    }
}

/// As `Debug` of a buffer of the network libraries has it.
fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in bytes {
        match byte {
            b'\n' => text.extend(b"\\n"),
            b'\r' => text.extend(b"\\r"),
            b'\t' => text.extend(b"\\t"),
            b'\\' => text.extend(b"\\\\"),
            b'"' => text.extend(b"\\\""),
            0 => text.extend(b"\\0"),
            0x20..0x7f => text.push(*byte),
            _ => text.extend(format!("\\x{byte:02x}").into_bytes()),
        }
    }
    text
}
