// SPDX-License-Identifier: GPL-2.0
//! The story on every pairing of drivers. `cargo nextest run -p drbd-lab -E 'test(c_c)'` needs no
//! module of ours.

use drbd_lab::scenario::story;
use drbd_lab::{Driver, Kernel};

const C: Driver = Driver::C;
const OURS: Driver = Driver::Ours;

#[test]
fn c_c() {
    story::run("story-c-c", [C, C], Kernel::Release, 64);
}

#[test]
fn ours_ours() {
    story::run("story-ours-ours", [OURS, OURS], Kernel::Release, 256);
}

#[test]
fn ours_c() {
    story::run("story-ours-c", [OURS, C], Kernel::Release, 64);
}

#[test]
fn c_ours() {
    story::run("story-c-ours", [C, OURS], Kernel::Release, 64);
}

#[test]
fn ours_ours_kasan() {
    story::run("story-ours-ours-kasan", [OURS, OURS], Kernel::Kasan, 32);
}

#[test]
fn ours_ours_locks() {
    story::run("story-ours-ours-locks", [OURS, OURS], Kernel::Locks, 32);
}

#[test]
fn c_c_kasan() {
    story::run("story-c-c-kasan", [C, C], Kernel::Kasan, 32);
}

#[test]
fn c_c_locks() {
    story::run("story-c-c-locks", [C, C], Kernel::Locks, 32);
}
