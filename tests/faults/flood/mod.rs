//! Somebody uses up what others need: the disk, the log, the broker's time.

mod denials;
mod disk_full;
mod one_uid;
