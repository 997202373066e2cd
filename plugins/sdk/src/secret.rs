//! Secrets by name. A plugin never sees a value: it puts a placeholder into a `Secret`, and the host agent puts the value
//! there when it applies the object.

use k8sctl_proto::plugin::v1 as wire;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A secret that the user names in the config. `k8sctl plugin config NAME --secret HANDLE.KEY=@FILE` gives its value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline, title = "Secret", extend("x-k8sctl-secret" = true))]
pub struct SecretRef {
    /// Name of the secret.
    #[schemars(title = "Handle", length(min = 1, max = 63))]
    pub handle: String,
    /// Which part of it.
    #[schemars(title = "Key", length(min = 1, max = 253))]
    pub key: String,
}

impl SecretRef {
    /// What stands for the value, as the whole value of a key below `data` or `stringData` of a `Secret`.
    pub fn placeholder(&self) -> Value {
        json!({"$k8sctl.secret": {"handle": self.handle, "key": self.key}})
    }
}

/// A secret that the host agent makes once and keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GeneratedSecret {
    /// Name of the secret.
    pub handle: String,
    /// Which part of it.
    pub key: String,
    /// Characters, 8 to 1024.
    pub length: u32,
    /// Of what characters.
    pub alphabet: Alphabet,
}

/// Characters of a generated secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Alphabet {
    /// Letters and digits.
    #[default]
    Alphanumeric,
    /// `0` to `9` and `a` to `f`.
    Hex,
    /// As many random bytes in base64.
    Base64,
}

impl From<GeneratedSecret> for wire::GeneratedSecret {
    fn from(secret: GeneratedSecret) -> Self {
        let alphabet = match secret.alphabet {
            Alphabet::Alphanumeric => "alphanumeric",
            Alphabet::Hex => "hex",
            Alphabet::Base64 => "base64",
        };
        Self { handle: secret.handle, key: secret.key, length: secret.length, alphabet: alphabet.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_marked_in_the_schema_and_stands_for_itself() {
        let schema = schemars::schema_for!(SecretRef).to_value();
        assert_eq!(schema["x-k8sctl-secret"], true, "{schema}");
        assert_eq!(schema["additionalProperties"], false, "{schema}");
        let secret = SecretRef { handle: "admin".to_owned(), key: "password".to_owned() };
        let wanted = json!({"$k8sctl.secret": {"handle": "admin", "key": "password"}});
        assert_eq!(secret.placeholder(), wanted);
        serde_json::from_value::<SecretRef>(json!("admin.password")).expect_err("a text is none");
    }
}
