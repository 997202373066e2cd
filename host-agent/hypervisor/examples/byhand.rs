use host_hypervisor::adoption::Adoption;
use host_hypervisor::desired::*;
use host_hypervisor::plan::{plan_host, plan_teardown};
use host_hypervisor::real::HypervisorConfig;
use host_hypervisor::{Hypervisor, RealHypervisor};
use k8sctl_types::spec::*;
use std::time::Instant;

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let dir = std::path::PathBuf::from(std::env::var("LAB_DIR").unwrap());
    let host = RealHypervisor::start(HypervisorConfig {
        uri: "qemu:///system".into(),
        console_dir: dir.join("console"),
    })
    .unwrap();
    let cidr: ipnet::Ipv4Net = "192.168.122.0/24".parse().unwrap();
    let at = |last: u32| std::net::Ipv4Addr::from(u32::from(cidr.network()) + last);
    let vcpus: u32 = args[3].parse().unwrap();
    let node = |name: &str, last: u32| DesiredNode {
        node_id: format!("id-{name}"),
        spec: NodeSpec {
            name: name.into(),
            role: Role::Worker,
            vcpus,
            memory_bytes: 512 << 20,
            disk_bytes: (vcpus as u64) << 30,
            ip: at(last),
            mac: format!("52:54:00:00:01:{last:02x}"),
            labels: vec![],
            taints: vec![],
        },
        machine_uuid: format!("00000000-0000-4000-8000-0000000000{last:02x}"),
        powered: true,
        cmdline: String::new(),
    };
    let img = std::path::PathBuf::from("/tmp/hv");
    let want = DesiredHost {
        cluster_id: "0192f0c1-0000-7000-8000-000000000001".into(),
        cluster_name: "home".into(),
        generation: 1,
        network: NetworkSpec {
            name: args[2].clone(),
            cidr,
            pods: "10.244.0.0/16".parse().unwrap(),
            services: "10.96.0.0/12".parse().unwrap(),
            load_balancer: Some(AddressRange { first: at(100), last: at(150) }),
            dhcp: None,
        },
        nodes: vec![node("cp-1", 10), node("worker-1", 11)],
        image: DesiredImage {
            id: "0123456789abcdef0123".into(),
            disk: img.join("base.qcow2"),
            kernel: img.join("vmlinuz"),
            initrd: img.join("ird3.gz"),
            cmdline: "console=ttyS0 quiet".into(),
            size_bytes: 30 << 20,
        },
        pool: DesiredPool { name: "k8s-myhome".into(), path: dir.join("kpool") },
    };
    let file = dir.join("adoption.json");
    let adoption: Adoption =
        std::fs::read(&file).ok().map(|b| serde_json::from_slice(&b).unwrap()).unwrap_or_default();
    let t = Instant::now();
    let observed = host.observe(&want.pool).await.unwrap();
    println!("observe {:?}", t.elapsed());
    let up = args[1] == "up";
    let plan = if args[1] == "console" {
        for n in ["cp-1", "worker-1"] {
            println!("{n}: {:?} {:?}", host.console_tail(n, 200).await, host.join_channel(n).await);
        }
        for c in host_hypervisor::doctor::examine(&host, &want.pool).await {
            println!("{c:?}");
        }
        return;
    } else if args[1] == "watch" {
        let mut rx = host.changes();
        for _ in 0..args[4].parse().unwrap() {
            rx.changed().await.unwrap();
            println!(
                "event {} observe {:?}",
                *rx.borrow_and_update(),
                host.observe(&want.pool).await.map(|o| o.domains.len()).map_err(|f| f.to_string())
            );
        }
        return;
    } else if up {
        plan_host(&want, &observed, &adoption).unwrap()
    } else {
        plan_teardown(&want.cluster_id, &want.pool, &observed, &adoption)
    };
    if up {
        std::fs::write(&file, serde_json::to_vec(&plan.adoption).unwrap()).unwrap();
    }
    println!("{} changes", plan.changes.len());
    for c in &plan.changes {
        let t = Instant::now();
        let r = host.execute(&c.op).await;
        println!(
            "{} {} {} [{}] {} -> {:?} {:?}",
            c.action,
            c.kind,
            c.name,
            c.op.name(),
            c.reason,
            r,
            t.elapsed()
        );
        if r.is_err() {
            std::process::exit(1);
        }
    }
    if !up {
        std::fs::write(&file, serde_json::to_vec(&plan.adoption).unwrap()).unwrap();
    }
}
