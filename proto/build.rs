//! Generates the wire types, and the table of roles from the `role` option of each control method.
//!
//! A control method without a role ends the build: nobody can add a call and forget who may make it.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use prost_reflect::{DescriptorPool, MethodDescriptor, Value};

const FILES: [&str; 4] = [
    "k8sctl/options/v1/options.proto",
    "k8sctl/node/v1/node.proto",
    "k8sctl/control/v1/control.proto",
    "k8sctl/plugin/v1/plugin.proto",
];

fn main() {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let mut compiler = protox::Compiler::new(["."]).expect("the proto directory is readable");
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(FILES).expect("the proto files compile");

    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let roles = role_table(&compiler.descriptor_pool());
    fs::write(Path::new(&out).join("roles.rs"), roles).expect("OUT_DIR is writable");

    tonic_prost_build::configure()
        .compile_fds(compiler.file_descriptor_set())
        .expect("the descriptors generate");
}

/// A Rust slice literal `[("/package.Service/Method", Role::…), …]` over every method of the control package.
fn role_table(pool: &DescriptorPool) -> String {
    let option =
        pool.get_extension_by_name("k8sctl.options.v1.role").expect("options.proto defines the role option");
    let role = |method: &MethodDescriptor| match method.options().get_extension(&option).into_owned() {
        Value::EnumNumber(number) => number,
        _ => 0,
    };
    let mut table = String::from("&[\n");
    for service in pool.services().filter(|s| s.package_name() == "k8sctl.control.v1") {
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            let variant = match role(&method) {
                1 => "Reader",
                2 => "Operator",
                3 => "Admin",
                _ => panic!("{path} has no role: add `option (k8sctl.options.v1.role) = ROLE_…;` to it"),
            };
            writeln!(table, "    (\"{path}\", Role::{variant}),").expect("writing to a String");
        }
    }
    table.push(']');
    table
}
