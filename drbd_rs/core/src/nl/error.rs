// SPDX-License-Identifier: GPL-2.0

//! Why a request is refused: DRBD's numbers, and what is wrong with attributes.

macro_rules! err_codes {
    ($( $(#[$meta:meta])* $name:ident = $nr:literal; )+) => {
        /// A reply's code other than those of the state machine. `drbdsetup` has a text for each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrCode {
            $( $(#[$meta])* $name, )+
        }

        impl ErrCode {
            /// All codes, in the order of their numbers.
            pub const ALL: &'static [ErrCode] = &[ $( ErrCode::$name, )+ ];

            /// The number.
            pub const fn number(self) -> i32 {
                match self {
                    $( ErrCode::$name => $nr, )+
                }
            }

            /// The code with this number.
            pub const fn from_number(nr: i32) -> Option<ErrCode> {
                match nr {
                    $( $nr => Some(ErrCode::$name), )+
                    _ => None,
                }
            }
        }
    };
}

err_codes! {
    /// No error.
    NoError = 101;
    /// Local address in use.
    LocalAddr = 102;
    /// Remote address in use.
    PeerAddr = 103;
    /// The backing device cannot be opened.
    OpenDisk = 104;
    /// The device with the metadata cannot be opened.
    OpenMdDisk = 105;
    /// Not a block device; no longer returned.
    DiskNotBdev = 107;
    /// Not a block device; no longer returned.
    MdNotBdev = 108;
    /// The backing device is too small.
    DiskTooSmall = 111;
    /// The device with the metadata is too small.
    MdDiskTooSmall = 112;
    /// The backing device is claimed; no longer returned.
    BdclaimDisk = 114;
    /// The device with the metadata is claimed; no longer returned.
    BdclaimMdDisk = 115;
    /// Device and index do not fit.
    MdIdxInvalid = 116;
    /// Error when reading the metadata.
    IoMdDisk = 118;
    /// No valid metadata.
    MdInvalid = 119;
    /// `cram-hmac-alg` is unknown.
    AuthAlg = 120;
    /// `cram-hmac-alg` is no digest.
    AuthAlgNd = 121;
    /// No memory.
    Nomem = 122;
    /// A primary cannot discard its data.
    DiscardImpossible = 123;
    /// There is already a disk.
    DiskConfigured = 124;
    /// There is already a connection.
    NetConfigured = 125;
    /// An attribute is missing or must not be there.
    MandatoryTag = 126;
    /// No such minor.
    MinorInvalid = 127;
    /// Interrupted.
    Intr = 129;
    /// Not during a resync.
    ResizeResync = 130;
    /// A primary is needed.
    NoPrimary = 131;
    /// `resync-after` is invalid.
    ResyncAfter = 132;
    /// `resync-after` makes a cycle.
    ResyncAfterCycle = 133;
    /// Already paused.
    PauseIsSet = 134;
    /// Not paused.
    PauseIsClear = 135;
    /// Unknown request.
    PacketNr = 137;
    /// No disk.
    NoDisk = 138;
    /// Protocol C is needed.
    NotProtoC = 139;
    /// No memory for the bitmap.
    NomemBitmap = 140;
    /// `data-integrity-alg` is unknown.
    IntegrityAlg = 141;
    /// `data-integrity-alg` is no digest.
    IntegrityAlgNd = 142;
    /// Invalid `cpu-mask`.
    CpuMaskParse = 143;
    /// `csums-alg` is unknown.
    CsumsAlg = 144;
    /// `csums-alg` is no digest.
    CsumsAlgNd = 145;
    /// `verify-alg` is unknown.
    VerifyAlg = 146;
    /// `verify-alg` is no digest.
    VerifyAlgNd = 147;
    /// `csums-alg` cannot change during a resync.
    CsumsResyncRunning = 148;
    /// `verify-alg` cannot change during a verify.
    VerifyRunning = 149;
    /// The disk does not hold the data that were lost last.
    DataNotCurrent = 150;
    /// Not while connected.
    Connected = 151;
    /// Permission denied.
    Perm = 152;
    /// Protocol version 93 is needed.
    NeedApv93 = 153;
    /// Stonith needs protocol B or C.
    StonithAndProtA = 154;
    /// Pulling ahead needs protocol A.
    CongNotProtoA = 155;
    /// Paused by a dependency.
    PicAfterDep = 156;
    /// Paused by the peer.
    PicPeerDep = 157;
    /// Unknown resource.
    ResNotKnown = 158;
    /// The resource has volumes.
    ResInUse = 159;
    /// The minor is configured.
    MinorConfigured = 160;
    /// Minor or volume exist.
    MinorOrVolumeExists = 161;
    /// Invalid request.
    InvalidRequest = 162;
    /// Protocol version 100 is needed.
    NeedApv100 = 163;
    /// There are two primaries.
    NeedAllowTwoPri = 164;
    /// The activity log was not applied.
    MdUnclean = 165;
    /// A new layout needs the peer.
    MdLayoutConnected = 166;
    /// The activity log would be too large.
    MdLayoutTooBig = 167;
    /// The activity log would be too small.
    MdLayoutTooSmall = 168;
    /// The activity log would not fit.
    MdLayoutNoFit = 169;
    /// The device would shrink.
    ImplicitShrink = 170;
}

/// What is wrong with the attributes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The group is not there.
    NoGroup(&'static str),
    /// A required attribute is not there.
    Missing(&'static str),
    /// An attribute is too short, too long or no string. The kernel answers with an errno.
    Invalid(&'static str),
    /// An attribute is there that cannot be changed.
    Invariant(&'static str),
}

impl Error {
    /// The code of the reply, where there is one: [`Error::Invalid`] is answered by netlink itself.
    pub const fn code(self) -> Option<ErrCode> {
        match self {
            Error::NoGroup(_) | Error::Missing(_) | Error::Invariant(_) => {
                Some(ErrCode::MandatoryTag)
            }
            Error::Invalid(_) => None,
        }
    }

    /// The line that the C driver puts into the reply.
    pub const fn text(self) -> &'static str {
        match self {
            Error::NoGroup(_) | Error::Missing(_) => "required attribute missing",
            Error::Invalid(_) => "invalid attribute value",
            Error::Invariant(_) => "cannot change invariant setting",
        }
    }
}
