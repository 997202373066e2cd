//! A spec on hosts of different sizes.

use k8sctl_types::spec::{self, Diagnostic, HostRoom};

use crate::{HOME, id_of};

const GIB: u64 = 1 << 30;

fn found(text: &str, memory_bytes: u64, cpus: u32, free_disk_bytes: u64) -> Vec<Diagnostic> {
    let host = HostRoom { memory_bytes, cpus, free_disk_bytes };
    spec::parse_on(text, &host).map_or_else(|found| found, |parsed| parsed.warnings)
}

fn ids(memory: u64, cpus: u32, disk: u64) -> Vec<(&'static str, bool)> {
    let mut ids: Vec<_> =
        found(HOME, memory, cpus, disk).iter().map(|found| (id_of(found), found.warning)).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn home_fits_a_host_of_its_size() {
    assert_eq!(ids(17 * GIB, 8, 110 * GIB), []);
}

#[test]
fn memory_is_an_error_and_the_rest_are_warnings() {
    assert_eq!(ids(8 * GIB - 1, 8, 110 * GIB), [("SPEC-HOST-MEMORY", false)]);
    assert_eq!(ids(8 * GIB, 8, 110 * GIB), [("SPEC-HOST-MEMORY-TIGHT", true)]);
    assert_eq!(ids(16 * GIB, 8, 110 * GIB), [("SPEC-HOST-MEMORY-TIGHT", true)]);
    assert_eq!(ids(64 * GIB, 7, 110 * GIB), [("SPEC-HOST-VCPUS", true)]);
    assert_eq!(ids(64 * GIB, 8, 110 * GIB - 1), [("SPEC-HOST-DISK", true)]);
    // Three of 8 GiB: each would start, all together are more than twice what is there.
    let three = HOME.replace("memory = \"4GiB\"", "memory = \"8GiB\"");
    for (gib, warning) in [(11, false), (12, true)] {
        let found = found(&three, gib * GIB, 8, 110 * GIB);
        let [one] = found.as_slice() else { panic!("{found:?}") };
        assert!(one.id.starts_with("SPEC-HOST-MEMORY") && one.warning == warning, "{one:?}");
        assert!(one.message.contains("want 24576 MiB together"), "{one:?}");
    }
    let all = ids(0, 0, 0);
    assert_eq!(all, [("SPEC-HOST-DISK", true), ("SPEC-HOST-MEMORY", false), ("SPEC-HOST-VCPUS", true)]);
}

/// What Linux finds of 16 GB in a machine whose graphics take half of one.
#[test]
fn home_is_taken_by_a_host_that_is_sold_with_its_memory() {
    let host = HostRoom { memory_bytes: 15 * GIB, cpus: 8, free_disk_bytes: 110 * GIB };
    let parsed = spec::parse_on(HOME, &host).expect("it may be brought up");
    let told = &parsed.warnings[0].message;
    assert!(told.contains("want 16384 MiB together, the host has 15360 MiB"), "{told}");
}

#[test]
fn what_does_not_fit_is_told_with_its_line_beside_all_else() {
    let text =
        HOME.replacen("memory = \"4GiB\"", "memory = \"900GiB\"", 1).replacen("vcpus = 4", "vcpus = 0", 1);
    assert_ne!(text, HOME);
    let found = found(&text, 24 * GIB, 8, 200 * GIB);
    let line =
        |needle: &str| text.lines().position(|line| line.contains(needle)).expect("it is there") as u32 + 1;
    let told: Vec<_> = found.iter().map(|one| (id_of(one), one.line)).collect();
    assert_eq!(told, [("SPEC-VCPUS", line("vcpus = 0")), ("SPEC-HOST-MEMORY", line("900GiB"))], "{found:?}");
    assert!(found[1].field.ends_with("].memory"), "{}", found[1].field);
}
