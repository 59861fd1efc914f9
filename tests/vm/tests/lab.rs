// SPDX-License-Identifier: GPL-2.0
//! Tests of the lab itself, without DRBD: what the other tests rely on is true.

use std::time::Duration;

use drbd_lab::acked::{Job, Ledger};
use drbd_lab::client::Progress;
use drbd_lab::{Cluster, Driver, Kernel, NodeSpec};

fn bare(name: &str) -> NodeSpec {
    NodeSpec::new(name, Driver::None, Kernel::Release, 16)
}

#[test]
fn nodes_talk_and_the_wire_can_be_cut() {
    Cluster::test("lab-wire", &[bare("a"), bare("b"), bare("c")], |c| {
        let [a, b, d] = c.nodes.as_slice() else {
            panic!("three nodes")
        };
        let ping = |to: &drbd_lab::Node| format!("ping -c 1 -W 2 {}", to.address());
        a.must(&ping(b))?;
        a.must(&ping(d))?;
        c.wire.cut(0, 1);
        assert_ne!(a.run(&ping(b))?.code, 0);
        a.must(&ping(d))?;
        c.wire.heal();
        a.must(&ping(b))?;
        Ok(())
    });
}

#[test]
fn commands_give_their_output_and_waits_are_bounded() {
    Cluster::test("lab-commands", &[bare("a")], |c| {
        let a = &c.nodes[0];
        let out = a.run("echo out; echo err >&2; exit 3")?;
        assert_eq!(
            (out.code, out.text(), out.error_text()),
            (3, "out\n".into(), "err\n".into())
        );
        assert!(a.run_for("sleep 100", Duration::from_millis(500)).is_err());
        a.put("/tmp/x/y", 0o600, b"content")?;
        assert_eq!(a.get("/tmp/x/y")?, b"content");
        assert!(a.must("false").is_err());
        assert_eq!(a.must("hostname")?, "a\n");
        Ok(())
    });
}

#[test]
fn a_power_cut_loses_what_was_not_flushed_and_only_that() {
    Cluster::test("lab-power", &[bare("a")], |c| {
        let a = &c.nodes[0];
        let mut ledger = Ledger::default();
        let mut writer = a.spawn_writer(&Job::endless("/dev/vdc", 256, 1))?;
        assert_eq!(writer.wait(Duration::from_secs(2)), Progress::Running);
        a.crash(1)?;
        assert_eq!(writer.wait(Duration::from_secs(10)), Progress::Lost);
        ledger.add_lines(&writer.output().text())?;
        assert!(ledger.len() > 10);
        ledger.check_with(|block| a.disk(0).peek(block))?;
        a.start()?;
        ledger.check_lines(&a.read_back(&Job::endless("/dev/vdc", 256, 1))?)?;

        // Without O_SYNC acknowledged writes are lost, or this disk would prove nothing.
        let mut volatile = Ledger::default();
        let job = Job {
            sync: false,
            first_seq: 1_000_000,
            ..Job::endless("/dev/vdc", 256, 2)
        };
        let mut writer = a.spawn_writer(&job)?;
        assert_eq!(writer.wait(Duration::from_secs(2)), Progress::Running);
        a.crash(2)?;
        writer.wait(Duration::from_secs(10));
        volatile.add_lines(&writer.output().text())?;
        assert!(volatile.check_with(|block| a.disk(0).peek(block)).is_err());
        Ok(())
    });
}

#[test]
fn a_splat_fails_a_test() {
    let specs = [bare("a")];
    let failed = std::panic::catch_unwind(|| {
        Cluster::test("lab-splat", &specs, |c| {
            // A crash on purpose; the machine ends with it.
            let _ = c.nodes[0].run("echo c > /proc/sysrq-trigger");
            Ok(())
        });
    });
    assert!(failed.is_err());
    let kept = drbd_lab::cache::failures().join("lab-splat");
    assert!(kept.join("a.console").exists());
    std::fs::remove_dir_all(kept).unwrap();
}
