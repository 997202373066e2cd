//! libvirt's XML as typed structs: what we write, with golden tests, and the part of what libvirt
//! shows that we read.
//!
//! - [`owner`]: our metadata element, the proof that an object is ours
//! - [`domain`], [`network`], [`storage`]: one document each

pub mod domain;
#[cfg(test)]
mod golden;
pub mod network;
pub mod owner;
pub mod storage;

use quick_xml::SeError;
use quick_xml::se::Serializer;
use serde::Serialize;

/// A libvirt document that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum XmlError {
    /// What libvirt showed is not what its schema says.
    #[error("cannot read libvirt's {what}: {reason}")]
    Read {
        /// Kind of document.
        what: &'static str,
        /// The parser's reason.
        reason: String,
    },
    /// A value has no XML form.
    #[error("cannot write {what} as XML: {reason}")]
    Write {
        /// Kind of document.
        what: &'static str,
        /// The serializer's reason.
        reason: String,
    },
}

fn write<T: Serialize>(what: &'static str, root: &str, value: &T) -> Result<String, XmlError> {
    let failed = |error: SeError| XmlError::Write { what, reason: error.to_string() };
    let mut text = String::new();
    let mut serializer = Serializer::with_root(&mut text, Some(root)).map_err(failed)?;
    serializer.indent(' ', 2);
    value.serialize(serializer).map_err(failed)?;
    text.push('\n');
    Ok(text)
}

fn read<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T, XmlError> {
    quick_xml::de::from_str(text).map_err(|error| XmlError::Read { what, reason: error.to_string() })
}

/// An element with nothing in it.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Empty {}

/// An element with one `type` attribute.
#[derive(Clone, Debug, Serialize)]
struct Typed {
    #[serde(rename = "@type")]
    kind: &'static str,
}

/// An element with one `file` attribute.
#[derive(Clone, Debug, Serialize)]
struct FileSource {
    #[serde(rename = "@file")]
    file: String,
}
