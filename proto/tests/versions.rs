//! Protocols of which the two sides may be of different ages, held against what was promised before: nothing of that is
//! gone or means something else. Between host agent and node agents either side may be the older one by a minor number; a
//! plugin may be as old as version 1 of its protocol.

use std::path::Path;

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    MethodDescriptor, Value,
};

struct Protocol {
    package: &'static str,
    file: &'static str,
    /// What was promised before, as it was; never changed.
    frozen: &'static str,
}

const NODE: Protocol = Protocol {
    package: "k8sctl.node.v1",
    file: "k8sctl/node/v1/node.proto",
    frozen: "tests/frozen/node-1.1",
};
const PLUGIN: Protocol = Protocol {
    package: "k8sctl.plugin.v1",
    file: "k8sctl/plugin/v1/plugin.proto",
    frozen: "tests/frozen/plugin-1",
};
const ALL: [Protocol; 2] = [NODE, PLUGIN];

impl Protocol {
    fn pool(&self, dir: &str) -> DescriptorPool {
        let ours = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for tests");
        self.below(&Path::new(&ours).join(dir))
    }

    fn below(&self, dir: &Path) -> DescriptorPool {
        let mut compiler = protox::Compiler::new([dir]).expect("the directory is there");
        compiler.include_imports(true).open_file(self.file).expect("it compiles");
        compiler.descriptor_pool()
    }

    fn frozen(&self) -> DescriptorPool {
        self.pool(self.frozen)
    }

    fn current(&self) -> DescriptorPool {
        self.pool("")
    }

    fn messages(&self, pool: &DescriptorPool) -> Vec<MessageDescriptor> {
        pool.all_messages().filter(|message| message.package_name() == self.package).collect()
    }

    fn methods(&self, pool: &DescriptorPool) -> Vec<String> {
        let ours = pool.services().filter(|service| service.package_name() == self.package);
        ours.flat_map(|service| service.methods().map(|method| call(&method)).collect::<Vec<_>>()).collect()
    }

    /// What of the protocol before is no longer in this one.
    fn changes(&self, before: &DescriptorPool, now: &DescriptorPool) -> Vec<String> {
        let mut changes = Vec::new();
        for message in self.messages(before) {
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
        for of in before.all_enums().filter(|it| it.package_name() == self.package) {
            let kept = now.get_enum_by_name(of.full_name()).map(|kept| values(&kept)).unwrap_or_default();
            let lost = values(&of).into_iter().filter(|value| !kept.contains(value));
            changes
                .extend(lost.map(|(name, number)| format!("{}: {name} = {number} is gone", of.full_name())));
        }
        let kept = self.methods(now);
        let lost = self.methods(before).into_iter().filter(|method| !kept.contains(method));
        changes.extend(lost.map(|method| format!("method {method} is gone")));
        changes
    }
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

#[test]
fn nothing_of_the_version_before_is_gone_or_changed() {
    for protocol in ALL {
        let (before, now) = (protocol.frozen(), protocol.current());
        assert!(protocol.messages(&before).len() > 20, "{} was not read", protocol.frozen);
        assert!(!protocol.methods(&before).is_empty(), "{} was not read", protocol.frozen);
        let changes = protocol.changes(&before, &now);
        assert!(changes.is_empty(), "raise the major number, or put it back: {changes:#?}");
    }
}

#[test]
fn a_change_would_be_noticed() {
    let lost = NODE.changes(&NODE.current(), &NODE.frozen());
    let told = |part: &str| lost.iter().any(|change| change.contains(part));
    assert!(told("message k8sctl.node.v1.NodeRequirements is gone"), "{lost:#?}");
    assert!(told("k8sctl.node.v1.DesiredState: requirements = 26"), "{lost:#?}");
    assert!(told("k8sctl.node.v1.CniMode: CNI_MODE_EXTERNAL = 2 is gone"), "{lost:#?}");
    // This version has no method that the one before has not: held against nothing at all, each is missed.
    let none = NODE.changes(&NODE.current(), &DescriptorPool::new());
    assert!(none.iter().any(|change| change.contains("NodeService.FetchAgent")), "{none:#?}");
}

/// Each way in which the plugins of others would no longer understand their host.
#[test]
fn a_change_of_the_plugins_protocol_would_be_noticed() {
    let ours = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for tests");
    let text = std::fs::read_to_string(Path::new(&ours).join(PLUGIN.file)).expect("it is there");
    let before = PLUGIN.frozen();
    for (part, instead, said) in [
        ("  repeated uint32 versions = 1;", "", "HandshakeRequest: versions = 1"),
        ("  bytes nonce = 3;", "  bytes nonce = 30;", "HandshakeRequest: nonce = 3"),
        ("  bytes nonce = 3;", "  string nonce = 3;", "HandshakeRequest: nonce = 3"),
        ("  string host_version = 2;", "  string sdk_of_host = 2;", "HandshakeRequest: host_version = 2"),
        (
            "  uint32 from_config_version = 1;",
            "  repeated uint32 from_config_version = 1;",
            "from_config_version",
        ),
        (
            "returns (stream PlanResponse)",
            "returns (PlanResponse)",
            "method k8sctl.plugin.v1.PluginService.Plan ",
        ),
        ("  rpc Assess(AssessRequest) returns (AssessResponse);", "", "PluginService.Assess "),
    ] {
        assert!(text.contains(part), "{part}");
        let changed = text.replacen(part, instead, 1);
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join(PLUGIN.file);
        std::fs::create_dir_all(file.parent().expect("it has one")).expect("made");
        std::fs::write(&file, changed).expect("written");
        let lost = PLUGIN.changes(&before, &PLUGIN.below(dir.path()));
        assert!(lost.iter().any(|change| change.contains(said)), "{instead}: {lost:#?}");
    }
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
    for protocol in ALL {
        understood(&protocol);
    }
}

fn understood(protocol: &Protocol) {
    let (before, now) = (protocol.frozen(), protocol.current());
    for old in protocol.messages(&before).into_iter().filter(|message| !message.is_map_entry()) {
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
