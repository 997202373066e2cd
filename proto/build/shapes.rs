//! Which fields of which message are messages themselves, from the `.proto` files. Part of the build script.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use prost_reflect::{DescriptorPool, Kind, MessageDescriptor, MethodDescriptor};

/// Where the server is what is not trusted: a plugin's program, which the host agent asks.
const ASKED: &str = "k8sctl.plugin.v1";

/// Rust items for `src/parts.rs`: the table of all messages of ours, and for each message of a method its place in it,
/// where whoever reads it does not trust whoever wrote it.
pub fn shapes(pool: &DescriptorPool) -> String {
    let is_ours = |message: &MessageDescriptor| message.full_name().starts_with("k8sctl.");
    let ours: Vec<MessageDescriptor> = pool.all_messages().filter(is_ours).collect();
    let place = |wanted: &MessageDescriptor| ours.iter().position(|it| it.full_name() == wanted.full_name());
    let mut text = String::from("const SHAPES: &[&[(u32, usize)]] = &[\n");
    for message in &ours {
        let messages = message.fields().filter_map(|field| match field.kind() {
            Kind::Message(of) => Some((field.number(), place(&of)?)),
            _ => None,
        });
        let fields: Vec<String> = messages.map(|(number, at)| format!("({number}, {at})")).collect();
        // Writing into a text cannot fail.
        let _ = writeln!(text, "    /* {} */ &[{}],", message.full_name(), fields.join(", "));
    }
    text.push_str("];\n");
    let methods: Vec<_> = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
    let strange = |method: &MethodDescriptor| {
        let is_asked = method.parent_service().package_name() == ASKED;
        if is_asked { method.output() } else { method.input() }
    };
    let strangers: BTreeSet<String> =
        methods.iter().map(|method| strange(method).full_name().to_owned()).collect();
    let mut done = BTreeSet::new();
    for message in methods.iter().flat_map(|method| [method.input(), method.output()]) {
        if !is_ours(&message) || !done.insert(message.full_name().to_owned()) {
            continue;
        }
        let shape = place(&message).filter(|_| strangers.contains(message.full_name()));
        let module = message.package_name().trim_start_matches("k8sctl.").replace('.', "::");
        let _ = writeln!(
            text,
            "impl Bounded for crate::{module}::{} {{ const SHAPE: Option<usize> = {shape:?}; }}",
            message.name()
        );
    }
    text
}
