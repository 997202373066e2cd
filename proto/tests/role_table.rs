//! What ends the build: a control method of which nobody said who may call it.

#[path = "../build/role_table.rs"]
mod role_table;

use std::path::Path;

use prost_reflect::DescriptorPool;
use role_table::role_table;

const PROTO: &str = r#"
syntax = "proto3";
package k8sctl.control.v1;
import "k8sctl/options/v1/options.proto";
message Request {}
message Response {}
service TestService {
  rpc Look(Request) returns (Response) { option (k8sctl.options.v1.role) = ROLE_READER; }
  rpc Change(Request) returns (Response) { option (k8sctl.options.v1.role) = ROLE_ADMIN; }
}
"#;

fn compiled(text: &str) -> DescriptorPool {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("test.proto"), text).expect("writes");
    let ours = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for tests");
    let mut compiler = protox::Compiler::new([dir.path(), Path::new(&ours)]).expect("both are there");
    compiler.include_imports(true).open_file("test.proto").expect("it compiles");
    compiler.descriptor_pool()
}

#[test]
fn each_method_gets_the_role_that_it_names() {
    let table = role_table(&compiled(PROTO)).expect("each has one");
    let lines: Vec<_> = table.lines().map(str::trim).collect();
    let look = "(\"/k8sctl.control.v1.TestService/Look\", Role::Reader),";
    let change = "(\"/k8sctl.control.v1.TestService/Change\", Role::Admin),";
    assert_eq!(lines, ["&[", look, change, "]"]);
}

#[test]
fn a_method_without_a_role_ends_the_build() {
    for (from, to) in
        [("{ option (k8sctl.options.v1.role) = ROLE_ADMIN; }", ";"), ("ROLE_ADMIN", "ROLE_UNSPECIFIED")]
    {
        assert!(PROTO.contains(from), "{from}");
        let error = role_table(&compiled(&PROTO.replace(from, to))).expect_err(to);
        assert!(error.starts_with("/k8sctl.control.v1.TestService/Change has no role"), "{error}");
    }
    // Methods of others, as of node agents, are ruled by their certificates.
    let others = PROTO.replace("package k8sctl.control.v1", "package k8sctl.node.v1");
    let others = others.replace("{ option (k8sctl.options.v1.role) = ROLE_ADMIN; }", ";");
    assert_eq!(role_table(&compiled(&others)).as_deref(), Ok("&[\n]"));
}
