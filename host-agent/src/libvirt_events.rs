//! Tells in the event log when libvirt went away under the host agent, and when it came back.

use std::time::Duration;

use host_hypervisor::real::Answers;
use k8sctl_types::event::EventType;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::events::{EventLog, NewEvent};

/// Until nobody tells of the connection any more.
pub async fn record(events: EventLog, mut answers: watch::Receiver<Answers>) {
    let event = |kind, message: String| NewEvent {
        cluster: String::new(),
        object: "host".to_owned(),
        warning: kind == EventType::LibvirtLost,
        kind,
        message,
    };
    let mut told = answers.borrow().losses;
    let mut lost: Option<Instant> = None;
    loop {
        let now = *answers.borrow_and_update();
        if now.losses > told {
            told = now.losses;
            let message = "VMs go on; none is seen, started or changed until it is back";
            events.record(event(EventType::LibvirtLost, message.to_owned())).await;
            lost.get_or_insert_with(Instant::now);
        }
        if now.is_open
            && let Some(since) = lost.take()
        {
            let away = humantime::format_duration(Duration::from_secs(since.elapsed().as_secs()));
            events.record(event(EventType::LibvirtBack, format!("it was away for {away}"))).await;
        }
        if answers.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{self, Selection};
    use host_store::Store;

    async fn told(events: &EventLog) -> Vec<(String, bool)> {
        let page = events.page(0, &Selection::default()).await.expect("reads");
        page.events.into_iter().map(|event| (event.r#type, event.warning)).collect()
    }

    #[tokio::test]
    async fn each_loss_is_told_and_its_end_once() {
        let store = Store::in_memory(&[events::SCHEMA]).expect("a store");
        let events = EventLog::open(store, 100).await.expect("a log");
        let sender = watch::Sender::new(Answers::default());
        let recorder = record(events.clone(), sender.subscribe());
        let until = async |count: u64| drop(events.head().wait_for(|head| *head >= count).await);
        let libvirt = async {
            // The first connection is no return.
            sender.send_modify(|it| it.is_open = true);
            // Lost and back before anybody looked.
            sender.send_modify(|it| it.losses = 1);
            until(2).await;
            sender.send_modify(|it| *it = Answers { losses: 2, is_open: false });
            until(3).await;
            sender.send_modify(|it| it.is_open = true);
            until(4).await;
            drop(sender);
        };
        tokio::join!(recorder, libvirt);
        let (lost, back) = (("LibvirtLost".to_owned(), true), ("LibvirtBack".to_owned(), false));
        assert_eq!(told(&events).await, [lost.clone(), back.clone(), lost, back]);
    }
}
