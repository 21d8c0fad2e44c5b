//! Every check of the emulator, each with a kernel that violates it and the most similar kernel that does not.

mod addresses;
mod aligned;
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
