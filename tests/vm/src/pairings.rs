// SPDX-License-Identifier: GPL-2.0
//! Tests of one scenario on several pairings of drivers and kernels.

/// A test for each pairing that is named, called as the pairing. It calls `on` with the name of the
/// pairing for folders, the two drivers, and the kernel.
#[macro_export]
macro_rules! pairings {
    ($on:ident: $($pairing:tt)*) => { $($crate::pairings!(@ $pairing $on);)* };
    (@ c_c $on:ident) => { $crate::pairings!(@test c_c "c-c" C C Release $on); };
    (@ ours_ours $on:ident) => {
        $crate::pairings!(@test ours_ours "ours-ours" Ours Ours Release $on);
    };
    (@ ours_c $on:ident) => { $crate::pairings!(@test ours_c "ours-c" Ours C Release $on); };
    (@ c_ours $on:ident) => { $crate::pairings!(@test c_ours "c-ours" C Ours Release $on); };
    (@ ours_ours_kasan $on:ident) => {
        $crate::pairings!(@test ours_ours_kasan "ours-ours-kasan" Ours Ours Kasan $on);
    };
    (@ ours_ours_locks $on:ident) => {
        $crate::pairings!(@test ours_ours_locks "ours-ours-locks" Ours Ours Locks $on);
    };
    (@test $name:ident $text:literal $a:ident $b:ident $kernel:ident $on:ident) => {
        #[test]
        fn $name() {
            let drivers = [$crate::Driver::$a, $crate::Driver::$b];
            $on($text, drivers, $crate::Kernel::$kernel);
        }
    };
}
