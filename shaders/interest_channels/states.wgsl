// The first word of an axis' state: there is no such channel, there is one, or the candidate's axes are not finite. The second is the
// power of two that the axis was scaled by.
const NO_CHANNEL: u32 = 0u;
const CHANNEL: u32 = 1u;
const NOT_FINITE: u32 = 2u;
