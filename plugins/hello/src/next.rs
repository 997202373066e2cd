//! The next version of `hello`, 0.2.0: `message` is called `text`, and the page has a colour. Its configs are version 2.

use std::collections::BTreeMap;

use plugin_sdk::{Assessment, Context, Description, Diagnostic, Plan, Plugin, nothing_older};
use serde_json::Value;

use crate::{Asked, NAME, PORT, Pull, WWW, default_message, default_replicas, judge, literal};

/// What the user may set.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "hello")]
pub struct NextConfig {
    /// Number of pods, spread over the nodes.
    #[serde(default = "default_replicas")]
    #[schemars(title = "Replicas", range(min = 1, max = 10))]
    pub replicas: i32,
    /// The text of the page.
    #[serde(default = "default_message")]
    #[schemars(title = "Text", length(min = 1, max = 200))]
    pub text: String,
    /// The colour of the text.
    #[serde(default)]
    #[schemars(title = "Colour")]
    pub colour: Colour,
    /// The image of the pods, with busybox and its web server at /bin/busybox. Left out: the bundle's workload image,
    /// which only trial bundles have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(title = "Image", length(min = 1, max = 255))]
    pub image: Option<String>,
    /// When nodes pull the image.
    #[serde(default)]
    #[schemars(title = "Pull")]
    pub pull: Pull,
}

/// The colour of a text.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Colour {
    /// As of ink.
    #[default]
    Black,
    /// As of leaves.
    Green,
    /// As of the sky.
    Blue,
}

impl Colour {
    /// As CSS names it.
    fn css(self) -> &'static str {
        match self {
            Self::Black => "black",
            Self::Green => "green",
            Self::Blue => "blue",
        }
    }
}

/// The plugin.
#[derive(Clone, Copy, Debug)]
pub struct Next;

impl Plugin for Next {
    type Config = NextConfig;

    fn describe(&self) -> Description {
        Description {
            name: NAME,
            version: "0.2.0",
            summary: "A web page that says hello in colour, with a pod on each worker",
            config_version: 2,
        }
    }

    fn plan(&self, config: &NextConfig, context: &Context) -> Result<Plan, Vec<Diagnostic>> {
        let page = "<p style=\"color: %s\">%s</p>\\n";
        let script = format!(
            "printf '{page}' \"$2\" \"$1\" >{WWW}/index.html && exec /bin/busybox httpd -f -p {PORT} -h {WWW}"
        );
        let NextConfig { replicas, text, colour, image, pull } = config;
        let asked =
            Asked { replicas: *replicas, message: text, at: "/text", image: image.as_deref(), pull: *pull };
        let args = vec![script, NAME.to_owned(), literal(text), colour.css().to_owned()];
        let annotations = BTreeMap::from([("hello.k8sctl.org/version".to_owned(), "0.2.0".to_owned())]);
        asked.plan(context, args, annotations)
    }

    fn assess(&self, config: &NextConfig, _: &Context, objects: &[Value]) -> Assessment {
        judge(config.replicas, objects)
    }

    fn migrate(&self, from: u32, mut config: Value) -> Result<Value, Vec<Diagnostic>> {
        let Some(settings) = config.as_object_mut().filter(|_| from == 1) else {
            return Err(nothing_older(from));
        };
        if let Some(message) = settings.remove("message") {
            settings.insert("text".to_owned(), message);
        }
        Ok(config)
    }
}
