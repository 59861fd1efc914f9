// SPDX-License-Identifier: GPL-2.0

//! The commands of the family: number, who may use them, and what they are about.

/// What a request must name; checked before its command sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// Nothing.
    Nothing,
    /// A minor that exists, in the header.
    Minor,
    /// A resource that exists.
    Resource,
    /// A resource that exists, and two addresses.
    ResourceAndAddresses,
    /// A connection, by its two addresses and nothing else.
    Connection,
}

/// How a message of this number comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A request of an administrator (CAP_NET_ADMIN) with one reply.
    Admin,
    /// A request of anybody with one reply, and a dump.
    DoAndDump,
    /// A request of anybody with many replies.
    Dump,
    /// Only sent by the kernel.
    Event,
}

macro_rules! commands {
    ($( $name:ident = $nr:literal $text:literal $usage:ident $context:ident
        [$($group:literal),*]; )+) => {
        /// A command or event. The numbers are part of the interface.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Command {
            $(
                #[doc = concat!("`DRBD_ADM_", $text, "`.")]
                $name,
            )+
        }

        impl Command {
            /// All commands, in the order of their numbers.
            pub const ALL: &'static [Command] = &[ $( Command::$name, )+ ];

            /// The number.
            pub const fn number(self) -> u8 {
                match self {
                    $( Command::$name => $nr, )+
                }
            }

            /// The command with this number.
            pub const fn from_number(nr: u8) -> Option<Command> {
                match nr {
                    $( $nr => Some(Command::$name), )+
                    _ => None,
                }
            }

            /// The name in the interface, without `DRBD_ADM_`.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Command::$name => $text, )+
                }
            }

            /// How it is used.
            pub const fn usage(self) -> Use {
                match self {
                    $( Command::$name => Use::$usage, )+
                }
            }

            /// What the request must name.
            pub const fn context(self) -> Context {
                match self {
                    $( Command::$name => Context::$context, )+
                }
            }

            /// The groups that the request is read for.
            pub const fn groups(self) -> &'static [u16] {
                match self {
                    $( Command::$name => &[$($group),*], )+
                }
            }
        }
    };
}

commands! {
    Event = 1 "EVENT" Event Nothing [];
    GetStatus = 2 "GET_STATUS" DoAndDump Minor [2];
    NewMinor = 5 "NEW_MINOR" Admin Resource [2];
    DelMinor = 6 "DEL_MINOR" Admin Minor [2];
    NewResource = 7 "NEW_RESOURCE" Admin Nothing [2, 4];
    DelResource = 8 "DEL_RESOURCE" Admin Resource [2];
    ResourceOpts = 9 "RESOURCE_OPTS" Admin Resource [2, 4];
    Connect = 10 "CONNECT" Admin ResourceAndAddresses [2, 5];
    Disconnect = 11 "DISCONNECT" Admin Connection [2, 12];
    Attach = 12 "ATTACH" Admin Minor [2, 3];
    Resize = 13 "RESIZE" Admin Minor [2, 7];
    Primary = 14 "PRIMARY" Admin Minor [2, 6];
    Secondary = 15 "SECONDARY" Admin Minor [2, 6];
    NewCUuid = 16 "NEW_C_UUID" Admin Minor [2, 10];
    StartOv = 17 "START_OV" Admin Minor [9];
    Detach = 18 "DETACH" Admin Minor [2, 13];
    Invalidate = 19 "INVALIDATE" Admin Minor [2];
    InvalPeer = 20 "INVAL_PEER" Admin Minor [2];
    PauseSync = 21 "PAUSE_SYNC" Admin Minor [2];
    ResumeSync = 22 "RESUME_SYNC" Admin Minor [2];
    SuspendIo = 23 "SUSPEND_IO" Admin Minor [2];
    ResumeIo = 24 "RESUME_IO" Admin Minor [2];
    Outdate = 25 "OUTDATE" Admin Minor [2];
    GetTimeoutType = 26 "GET_TIMEOUT_TYPE" Admin Minor [2];
    Down = 27 "DOWN" Admin Resource [2];
    ChgDiskOpts = 28 "CHG_DISK_OPTS" Admin Minor [2, 3];
    ChgNetOpts = 29 "CHG_NET_OPTS" Admin Connection [2, 5];
    GetResources = 30 "GET_RESOURCES" Dump Nothing [2];
    GetDevices = 31 "GET_DEVICES" Dump Nothing [2];
    GetConnections = 32 "GET_CONNECTIONS" Dump Nothing [2];
    GetPeerDevices = 33 "GET_PEER_DEVICES" Dump Nothing [2];
    ResourceState = 34 "RESOURCE_STATE" Event Nothing [];
    DeviceState = 35 "DEVICE_STATE" Event Nothing [];
    ConnectionState = 36 "CONNECTION_STATE" Event Nothing [];
    PeerDeviceState = 37 "PEER_DEVICE_STATE" Event Nothing [];
    GetInitialState = 38 "GET_INITIAL_STATE" Dump Nothing [2];
    Helper = 40 "HELPER" Event Nothing [];
    InitialStateDone = 41 "INITIAL_STATE_DONE" Event Nothing [];
}
