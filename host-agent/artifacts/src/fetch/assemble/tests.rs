use super::*;

#[test]
fn checksum_files_of_every_kind_are_read() {
    let sum = "a".repeat(64);
    assert_eq!(find_sum(&sum, "kubeadm"), Some(sum.clone()));
    let text =
        format!("-----BEGIN PGP SIGNED MESSAGE-----\n\n{}  runc.arm64\n{sum} *runc.amd64\n", "b".repeat(64));
    assert_eq!(find_sum(&text, "runc.amd64"), Some(sum));
    assert_eq!(find_sum(&text, "runc.s390x"), None);
}

#[test]
fn a_component_has_the_digest_that_upstream_published() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("kubelet");
    fs::write(&path, "changed since it was checked").expect("it is written");
    let version: KubernetesVersion = "v1.34.1".parse().expect("a version");
    let companions = releases::companions(&version).expect("it is in the table");
    let mut assets = plan_assets(&version, companions, &FetchSources::default());
    assets.retain(|asset| asset.file_name() == "kubelet");
    let sha256 = "a".repeat(64);
    let files =
        assets.into_iter().map(|asset| Download { asset, sha256: sha256.clone(), path: path.clone() });
    let components = unpack(&files.collect::<Vec<_>>(), dir.path()).expect("nothing to unpack");
    assert_eq!(components["bin/kubelet"].sha256, sha256);
}

#[test]
fn only_what_is_old_goes() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    for name in ["new.part", "old.part"] {
        fs::write(path(name), "x").expect("it is written");
    }
    let old = File::options().append(true).open(path("old.part"));
    old.and_then(|file| file.set_modified(SystemTime::now() - 2 * PARTIAL_AGE)).expect("it is dated back");
    remove_older(dir.path(), PARTIAL_AGE);
    assert!(path("new.part").exists() && !path("old.part").exists());
}

#[test]
fn names_have_roles() {
    assert_eq!(role_of("registry.k8s.io/coredns/coredns:v1.12.1"), Role::Coredns);
    assert_eq!(role_of("registry.k8s.io/etcd:3.6.4-0"), Role::Etcd);
}
