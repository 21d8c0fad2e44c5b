//! Every check of the emulator, with a kernel that breaks it on purpose and the nearest kernel that does not.

mod addresses;
mod alignment;
mod barriers;
mod copies;
mod initialisation;
mod lanes;
mod loading;
mod orders;
mod pair;
mod races;
mod stops;
