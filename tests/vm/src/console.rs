// SPDX-License-Identifier: GPL-2.0
//! Finds kernel splats in the console of a node.
//!
//! Errs on the side of alarm: a pattern is only left out when the kernel prints it in health too.

/// What a healthy kernel never prints, and what it means.
const SPLATS: [(&str, &str); 26] = [
    ("BUG:", "a kernel bug"),
    ("kernel BUG at", "a failed assertion"),
    ("WARNING:", "a kernel warning"),
    ("KASAN", "a memory error"),
    ("KFENCE", "a memory error"),
    ("UBSAN", "undefined behaviour"),
    ("Oops", "an oops"),
    ("unable to handle", "a wild pointer"),
    ("general protection", "a wild pointer"),
    ("Kernel panic", "a panic"),
    ("rust_kernel: panicked", "a Rust panic"),
    ("panicked at", "a Rust panic"),
    ("possible recursive locking", "a lock taken twice"),
    ("possible circular locking", "locks taken in two orders"),
    ("inconsistent lock state", "a lock used in two contexts"),
    ("suspicious RCU usage", "RCU used outside its rules"),
    ("Invalid wait context", "a sleeping lock in atomic context"),
    ("held lock freed", "a lock freed while held"),
    ("bad unlock balance", "an unlock without a lock"),
    ("scheduling while atomic", "sleep in atomic context"),
    ("sleeping function called", "sleep in atomic context"),
    ("blocked for more than", "a hung task"),
    ("rcu: INFO:", "an RCU stall"),
    ("refcount_t:", "a broken reference count"),
    ("unreferenced object", "a memory leak"),
    ("ODEBUG:", "an object misused"),
];

/// Lines that contain a pattern but are what a healthy kernel prints.
const HARMLESS: [&str; 3] = [
    // The banner of KASAN at boot.
    "KernelAddressSanitizer initialized",
    // debugfs and command line mentions.
    "Kernel command line:",
    "kmemleak: Kernel memory leak detector initialized",
];

/// The lines of `console` that are splats, with what they mean, at most ten.
pub fn splats(console: &str) -> Vec<String> {
    console
        .lines()
        .filter(|line| !HARMLESS.iter().any(|h| line.contains(h)))
        .filter_map(|line| {
            let (_, meaning) = SPLATS.iter().find(|(pattern, _)| line.contains(pattern))?;
            Some(format!("{meaning}: {}", line.trim()))
        })
        .take(10)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splats_are_found_and_health_is_quiet() {
        let healthy = "[ 0.0] kasan: KernelAddressSanitizer initialized (generic)\n\
                       [ 1.0] drbd: initialized. Version: 8.4.11 (api:1/proto:86-101)\n\
                       [ 2.0] drbd r0/0 drbd0: BAD! not a splat\n";
        assert_eq!(splats(healthy), Vec::<String>::new());
        let sick = "[ 1.0] BUG: KASAN: slab-use-after-free in x\n[ 1.1] fine\n\
                    [ 2.0] INFO: task drbd_w_r0:77 blocked for more than 60 seconds.\n\
                    [ 3.0] WARNING: possible circular locking dependency detected\n";
        assert_eq!(splats(sick).len(), 3);
    }
}
