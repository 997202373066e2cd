//! The protocol between host agent and node agents, held against its version before: nothing of that is gone or means
//! something else, so that either side may be the older one by a minor number.

use std::path::Path;

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    MethodDescriptor, Value,
};

const FILE: &str = "k8sctl/node/v1/node.proto";

fn pool(dir: &str) -> DescriptorPool {
    let ours = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for tests");
    let mut compiler = protox::Compiler::new([Path::new(&ours).join(dir)]).expect("the directory is there");
    compiler.include_imports(true).open_file(FILE).expect("it compiles");
    compiler.descriptor_pool()
}

/// The version before, as it was; never changed.
fn frozen() -> DescriptorPool {
    pool("tests/frozen/node-1.1")
}

fn current() -> DescriptorPool {
    pool("")
}

fn messages(pool: &DescriptorPool) -> Vec<MessageDescriptor> {
    pool.all_messages().filter(|message| message.package_name() == "k8sctl.node.v1").collect()
}

/// All that the wire knows of a field, and what its number means.
fn shape(field: &FieldDescriptor) -> String {
    let oneof = field.containing_oneof().map(|oneof| oneof.name().to_owned());
    let kind = match field.kind() {
        Kind::Message(of) => of.full_name().to_owned(),
        Kind::Enum(of) => of.full_name().to_owned(),
        plain => format!("{plain:?}"),
    };
    format!(
        "{} = {}: {:?} {kind} packed {} presence {} in {oneof:?}",
        field.name(),
        field.number(),
        field.cardinality(),
        field.is_packed(),
        field.supports_presence(),
    )
}

fn values(of: &EnumDescriptor) -> Vec<(String, i32)> {
    of.values().map(|value| (value.name().to_owned(), value.number())).collect()
}

fn call(method: &MethodDescriptor) -> String {
    format!(
        "{} {}{} {}{}",
        method.full_name(),
        method.input().full_name(),
        if method.is_client_streaming() { "…" } else { "" },
        method.output().full_name(),
        if method.is_server_streaming() { "…" } else { "" },
    )
}

/// What of the version before this one no longer has.
fn changes(before: &DescriptorPool, now: &DescriptorPool) -> Vec<String> {
    let mut changes = Vec::new();
    for message in messages(before) {
        let Some(kept) = now.get_message_by_name(message.full_name()) else {
            changes.push(format!("message {} is gone", message.full_name()));
            continue;
        };
        for field in message.fields() {
            let found = kept.get_field(field.number()).map(|kept| shape(&kept));
            if found.as_ref() != Some(&shape(&field)) {
                changes.push(format!("{}: {} is now {found:?}", message.full_name(), shape(&field)));
            }
        }
    }
    let enums = before.all_enums().filter(|it| it.package_name() == "k8sctl.node.v1");
    for of in enums {
        let kept = now.get_enum_by_name(of.full_name()).map(|kept| values(&kept)).unwrap_or_default();
        let lost = values(&of).into_iter().filter(|value| !kept.contains(value));
        changes.extend(lost.map(|(name, number)| format!("{}: {name} = {number} is gone", of.full_name())));
    }
    let methods = |pool: &DescriptorPool| -> Vec<String> {
        let ours = pool.services().filter(|service| service.package_name() == "k8sctl.node.v1");
        ours.flat_map(|service| service.methods().map(|method| call(&method)).collect::<Vec<_>>()).collect()
    };
    let kept = methods(now);
    let lost = methods(before).into_iter().filter(|method| !kept.contains(method));
    changes.extend(lost.map(|method| format!("method {method} is gone")));
    changes
}

#[test]
fn nothing_of_the_version_before_is_gone_or_changed() {
    let (before, now) = (frozen(), current());
    assert!(messages(&before).len() > 20, "the frozen file was not read");
    let changes = changes(&before, &now);
    assert!(changes.is_empty(), "raise the major number, or put it back: {changes:#?}");
}

#[test]
fn a_change_would_be_noticed() {
    let lost = changes(&current(), &frozen());
    let told = |part: &str| lost.iter().any(|change| change.contains(part));
    assert!(told("message k8sctl.node.v1.NodeRequirements is gone"), "{lost:#?}");
    assert!(told("k8sctl.node.v1.DesiredState: requirements = 26"), "{lost:#?}");
    assert!(told("k8sctl.node.v1.CniMode: CNI_MODE_EXTERNAL = 2 is gone"), "{lost:#?}");
    // This version has no method that the one before has not: held against nothing at all, each is missed.
    let none = changes(&current(), &DescriptorPool::new());
    assert!(none.iter().any(|change| change.contains("NodeService.FetchAgent")), "{none:#?}");
}

/// A message of this type with every field that its own fields can be made of, two levels deep.
fn filled(of: &MessageDescriptor, depth: u32) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    for field in of.fields() {
        let single = |kind: Kind| match kind {
            Kind::Bool => Some(Value::Bool(true)),
            Kind::String => Some(Value::String(format!("{} text", field.name()))),
            Kind::Bytes => Some(Value::Bytes(vec![1, 2, 3].into())),
            Kind::Uint32 => Some(Value::U32(7)),
            Kind::Uint64 => Some(Value::U64(1 << 40)),
            Kind::Int32 => Some(Value::I32(-7)),
            Kind::Int64 => Some(Value::I64(-1 << 40)),
            Kind::Enum(of) => Some(Value::EnumNumber(of.values().last().expect("values").number())),
            Kind::Message(of) if depth > 0 => Some(Value::Message(filled(&of, depth - 1))),
            _ => None,
        };
        let value = match (field.kind(), field.is_map(), field.is_list()) {
            (_, true, _) => Some(Value::Map(
                [(MapKey::String("key".to_owned()), Value::String("value".to_owned()))].into_iter().collect(),
            )),
            (kind, _, true) => single(kind).map(|value| Value::List(vec![value.clone(), value])),
            (kind, _, false) => single(kind),
        };
        if let Some(value) = value {
            message.set_field(&field, value);
        }
    }
    message
}

#[test]
fn what_the_version_before_writes_is_read_whole_and_the_other_way_round() {
    let (before, now) = (frozen(), current());
    for old in messages(&before).into_iter().filter(|message| !message.is_map_entry()) {
        let new = now.get_message_by_name(old.full_name()).expect("kept");
        let sent = filled(&old, 2);
        let read = DynamicMessage::decode(new.clone(), sent.encode_to_vec().as_slice()).expect("it is read");
        for field in old.fields().filter(|field| sent.has_field(field)) {
            let kept = new.get_field(field.number()).expect("kept");
            assert!(read.has_field(&kept), "{}.{}", old.full_name(), field.name());
        }
        assert_eq!(read.unknown_fields().count(), 0, "{}", old.full_name());
        assert_eq!(read.encode_to_vec(), sent.encode_to_vec(), "{}", old.full_name());

        // What the old side does not know it does not see, and all that it knows it does.
        let sent = filled(&new, 2);
        let read = DynamicMessage::decode(old.clone(), sent.encode_to_vec().as_slice()).expect("it is read");
        for field in old.fields() {
            let kept = new.get_field(field.number()).expect("kept");
            // Of a oneof the last one counts, which the old side may not know.
            if field.containing_oneof().is_none() {
                assert_eq!(
                    read.has_field(&field),
                    sent.has_field(&kept),
                    "{}.{}",
                    old.full_name(),
                    field.name()
                );
            }
        }
    }
}
