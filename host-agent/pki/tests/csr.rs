//! Whatever a certificate request asks for, the certificate says only what we say.

mod world;

use jiff::Timestamp;
use k8sctl_proto::node::v1::JoinRequest;
use proptest::prelude::*;
use rcgen::{
    CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
};
use world::{CLUSTER, NODE, World, request};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

const EXPORTER: [u8; 32] = [7; 32];

/// A request that asks for too much.
#[derive(Clone, Debug)]
struct Greedy {
    common_name: String,
    organizations: Vec<String>,
    names: Vec<String>,
    ca: bool,
    server: bool,
    key: u8,
    /// A byte to change in the finished request, where and how.
    damage: Option<(usize, u8)>,
}

fn greedy() -> impl Strategy<Value = Greedy> {
    let organization = prop_oneof![
        Just("system:masters".to_owned()),
        Just("system:nodes".to_owned()),
        Just("k8sctl:admin".to_owned()),
        "[a-z:]{1,20}",
    ];
    let name = prop_oneof![
        Just("host.cluster-a.k8sctl.internal".to_owned()),
        Just("kubernetes.default.svc".to_owned()),
        Just("127.0.0.1".to_owned()),
        Just("*".to_owned()),
        "[a-z]{1,12}\\.[a-z]{2,6}",
    ];
    (
        "[a-zA-Z0-9:/ -]{0,40}",
        prop::collection::vec(organization, 0..3),
        prop::collection::vec(name, 0..5),
        any::<bool>(),
        any::<bool>(),
        0..4_u8,
        prop::option::of((0..600_usize, 1..=255_u8)),
    )
        .prop_map(|(common_name, organizations, names, ca, server, key, damage)| Greedy {
            common_name,
            organizations,
            names,
            ca,
            server,
            key,
            damage,
        })
}

fn encode(greedy: &Greedy) -> Vec<u8> {
    let algorithm = match greedy.key {
        0 | 1 => &PKCS_ECDSA_P256_SHA256,
        2 => &PKCS_ED25519,
        _ => &PKCS_ECDSA_P384_SHA384,
    };
    let key = KeyPair::generate_for(algorithm).expect("a key");
    let mut params = CertificateParams::new(greedy.names.clone()).expect("names");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, greedy.common_name.as_str());
    for organization in &greedy.organizations {
        params.distinguished_name.push(DnType::OrganizationName, organization.as_str());
    }
    if greedy.ca {
        // basicConstraints CA:TRUE
        let constraints = CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff]);
        params.custom_extensions.push(constraints);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    }
    if greedy.server {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any];
    }
    let mut der = params.serialize_request(&key).expect("a request").der().to_vec();
    if let Some((at, flip)) = greedy.damage {
        let at = at % der.len();
        der[at] ^= flip;
    }
    der
}

fn assert_says_only_what_we_say(der: &[u8]) {
    let (rest, certificate) = X509Certificate::from_der(der).expect("a certificate");
    assert!(rest.is_empty());
    assert_eq!(certificate.subject().iter_rdn().count(), 0, "{}", certificate.subject());
    assert!(!certificate.is_ca());
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                let uri = format!("k8sctl://{CLUSTER}/node/{NODE}");
                let dns = format!("{NODE}.node.k8sctl.internal");
                assert_eq!(names.general_names, [GeneralName::URI(&uri), GeneralName::DNSName(&dns)]);
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                assert!(usage.client_auth && !usage.server_auth && !usage.any && usage.other.is_empty());
            }
            ParsedExtension::KeyUsage(usage) => assert!(usage.digital_signature() && !usage.key_cert_sign()),
            ParsedExtension::AuthorityKeyIdentifier(_) | ParsedExtension::SubjectKeyIdentifier(_) => {}
            ParsedExtension::BasicConstraints(constraints) => assert!(!constraints.ca),
            other => panic!("an extension that nobody ordered: {other:?}"),
        }
    }
}

#[test]
fn five_hundred_greedy_requests_get_nothing_of_it() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let world = World::new();
    let (mut signed, mut refused) = (0, 0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(500));
    let counters = std::cell::RefCell::new((&mut signed, &mut refused));
    runner
        .run(&greedy(), |greedy| {
            let join = async {
                let secret = world.offer().await;
                let request: JoinRequest = request(&secret, &EXPORTER, &encode(&greedy));
                world.authority.join(&request, &EXPORTER, world::peer()).await
            };
            match runtime.block_on(join) {
                Ok(given) => {
                    assert_says_only_what_we_say(&given.certificate_der);
                    let identity = world.ca().verify_node(&given.certificate_der, Timestamp::now());
                    prop_assert_eq!(identity.expect("is a node's").node_id, NODE);
                    prop_assert!(greedy.key < 3, "P-384 is not signed");
                    *counters.borrow_mut().0 += 1;
                }
                Err(_) => *counters.borrow_mut().1 += 1,
            }
            Ok(())
        })
        .expect("nothing that was asked for is in a certificate");
    assert!(signed > 50 && refused > 50, "both happen: {signed} signed, {refused} refused");
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    let (mut der, _) = world::csr_with_key();
    let last = der.len() - 1;
    der[last] ^= 1;
    assert_eq!(
        host_pki::csr::NodeCsr::parse(&der).expect_err("is refused"),
        host_pki::csr::CsrError::Signature
    );
    assert_eq!(host_pki::csr::NodeCsr::parse(&[]).expect_err("is refused"), host_pki::csr::CsrError::Form);
    let long = vec![0x30; 20_000];
    assert_eq!(host_pki::csr::NodeCsr::parse(&long).expect_err("is refused"), host_pki::csr::CsrError::Long);
}
