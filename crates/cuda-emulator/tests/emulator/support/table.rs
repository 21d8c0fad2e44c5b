//! Runs a PTX instruction over a table of operands: one kernel per instruction, one thread per row.
//!
//! The kernel loads `%a`, `%b`, … from 8-byte slots, executes the text, and stores `%r`, `%r1`, … zero-extended into 8-byte slots.

use std::fmt::Write as _;

use super::gpu::{Gpu, launch};
use super::word::{Expect, Outcome, Width, Word};

/// Operands and expected results.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) operands: Vec<u64>,
    pub(crate) results: Vec<Expect>,
}

struct Op {
    text: String,
    operands: Vec<Width>,
    results: Vec<Width>,
    rows: Vec<Row>,
}

/// Instructions with their rows. `run` executes all of them and reports all failures.
pub(crate) struct Table {
    ops: Vec<Op>,
    block: u32,
    target: &'static str,
    version: &'static str,
}

/// An oracle's result with a maximum error, as a range of single-precision numbers.
pub(crate) struct Near(pub(crate) Expect);

impl Near {
    /// The numbers within `error` of `exact`, plus one f32 rounding on either side.
    pub(crate) fn absolute(exact: f64, error: f64) -> Near {
        if exact.is_nan() {
            return Near(Expect::NanF32);
        }
        if exact.is_infinite() || exact.abs() - error > f64::from(f32::MAX) {
            let infinite = f32::INFINITY.copysign(exact as f32);
            return Near(Expect::F32(infinite, infinite));
        }
        Near(Expect::F32(((exact - error) as f32).next_down(), ((exact + error) as f32).next_up()))
    }

    pub(crate) fn relative(exact: f64, error: f64) -> Near {
        Near::absolute(exact, exact.abs() * error)
    }
}

impl Outcome for Near {
    const RESULT: Width = Width::B32;
    fn expect(self) -> Expect {
        self.0
    }
}

/// `add.s32` becomes `add.s32 %r, %a, %b;`; text that has operands is left unchanged.
fn complete(text: &str, operands: usize) -> String {
    if text.contains('%') {
        return text.to_owned();
    }
    let names: Vec<String> = (0..operands).map(|i| format!("%{}", letter(i))).collect();
    format!("{text} %r, {};", names.join(", "))
}

/// The width and the edge values of an operand of type `A`.
fn operand<A: Word>() -> (Width, Vec<u64>) {
    (A::WIDTH, A::edges().into_iter().map(A::bits).collect())
}

fn letter(operand: usize) -> char {
    char::from(b'a' + operand as u8)
}

impl Table {
    pub(crate) fn new() -> Table {
        Table { ops: Vec::new(), block: 128, target: "sm_80", version: "7.8" }
    }

    /// Sets another `.target` than sm_80.
    pub(crate) fn target(mut self, target: &'static str) -> Table {
        self.target = target;
        self
    }

    /// Sets a later `.version`, for instructions that require it.
    pub(crate) fn version(mut self, version: &'static str) -> Table {
        self.version = version;
        self
    }

    /// Sets the block size, for instructions whose result depends on other lanes.
    pub(crate) fn block(mut self, threads: u32) -> Table {
        self.block = threads;
        self
    }

    /// One operand: compares with the oracle on every edge value.
    pub(crate) fn unary<A: Word, R: Outcome>(&mut self, text: &str, oracle: impl Fn(A) -> R) -> &mut Table {
        self.product(text, &[operand::<A>()], R::RESULT, &|w| oracle(A::from_bits(w[0])).expect())
    }

    /// Two operands: compares with the oracle on every pair of edge values.
    pub(crate) fn binary<A: Word, B: Word, R: Outcome>(
        &mut self,
        text: &str,
        oracle: impl Fn(A, B) -> R,
    ) -> &mut Table {
        let operands = [operand::<A>(), operand::<B>()];
        self.product(text, &operands, R::RESULT, &|w| oracle(A::from_bits(w[0]), B::from_bits(w[1])).expect())
    }

    /// Three operands: compares with the oracle on every triple of edge values.
    pub(crate) fn ternary<A: Word, B: Word, C: Word, R: Outcome>(
        &mut self,
        text: &str,
        oracle: impl Fn(A, B, C) -> R,
    ) -> &mut Table {
        let operands = [operand::<A>(), operand::<B>(), operand::<C>()];
        self.product(text, &operands, R::RESULT, &|w| {
            oracle(A::from_bits(w[0]), B::from_bits(w[1]), C::from_bits(w[2])).expect()
        })
    }

    /// The oracle on every combination of the operands' edge values. Not generic, so that it is compiled once.
    fn product(
        &mut self,
        text: &str,
        operands: &[(Width, Vec<u64>)],
        result: Width,
        oracle: &dyn Fn(&[u64]) -> Expect,
    ) -> &mut Table {
        let mut combinations = vec![Vec::new()];
        for (_, edges) in operands {
            combinations = combinations
                .iter()
                .flat_map(|head| edges.iter().map(|edge| [head.as_slice(), &[*edge]].concat()))
                .collect();
        }
        let row = |operands: Vec<u64>| Row { results: vec![oracle(&operands)], operands };
        let widths: Vec<Width> = operands.iter().map(|(width, _)| *width).collect();
        self.raw(text, &widths, &[result], combinations.into_iter().map(row).collect())
    }

    /// Hand-computed rows with one result each.
    pub(crate) fn rows<A: Word, R: Outcome + Copy, const N: usize>(
        &mut self,
        text: &str,
        rows: &[([A; N], R)],
    ) -> &mut Table {
        let rows = rows
            .iter()
            .map(|&(operands, result)| Row {
                operands: operands.iter().map(|a| a.bits()).collect(),
                results: vec![result.expect()],
            })
            .collect();
        self.raw(text, &[A::WIDTH; N], &[R::RESULT], rows)
    }

    pub(crate) fn raw(
        &mut self,
        text: &str,
        operands: &[Width],
        results: &[Width],
        rows: Vec<Row>,
    ) -> &mut Table {
        assert!(!rows.is_empty(), "{text}: the table has no rows");
        self.ops.push(Op {
            text: complete(text, operands.len()),
            operands: operands.to_vec(),
            results: results.to_vec(),
            rows,
        });
        self
    }

    /// Runs everything on the device; panics with all instructions that are rejected or wrong.
    pub(crate) fn run(&self, gpu: &Gpu) {
        let failures = self.failures(gpu);
        assert!(failures.is_empty(), "\n{failures}");
    }

    /// Describes all instructions that are rejected or wrong; empty if there are none.
    pub(crate) fn failures(&self, gpu: &Gpu) -> String {
        let mut failures = String::new();
        for op in &self.ops {
            if let Err(failure) = op.run(gpu, self) {
                let _ = writeln!(failures, "{}\n{failure}", op.text);
            }
        }
        failures
    }
}

impl Op {
    fn ptx(&self, table: &Table) -> String {
        let mut registers = String::new();
        let mut loads = String::new();
        for (i, width) in self.operands.iter().enumerate() {
            let name = letter(i);
            let _ = writeln!(registers, "    .reg {} %{name};", width.register());
            let at = format!("[%in+{}]", 8 * i);
            let _ = match width {
                Width::Pred => {
                    writeln!(loads, "    ld.global.u32 %word, {at};\n    setp.ne.u32 %{name}, %word, 0;")
                }
                _ => writeln!(loads, "    ld.global{} %{name}, {at};", width.register()),
            };
        }
        let mut stores = String::new();
        for (i, width) in self.results.iter().enumerate() {
            let name = if i == 0 { "r".to_owned() } else { format!("r{i}") };
            let _ = writeln!(registers, "    .reg {} %{name};", width.register());
            let at = format!("[%out+{}]", 8 * i);
            let _ = match width {
                Width::Pred => {
                    writeln!(stores, "    selp.u32 %word, 1, 0, %{name};\n    st.global.u32 {at}, %word;")
                }
                _ => writeln!(stores, "    st.global{} {at}, %{name};", width.register()),
            };
        }
        let (version, target) = (table.version, table.target);
        let (text, slots, result_slots) = (&self.text, 8 * self.operands.len(), 8 * self.results.len());
        format!(
            ".version {version}\n.target {target}\n.address_size 64\n.visible .entry op(.param .u64 in, .param .u64 out, .param .u32 rows)\n{{\n\
             \x20   .reg .pred %outside;\n    .reg .b32 %row, %rows, %word, %thread;\n    .reg .b64 %in, %out, %offset;\n{registers}\
             \x20   mov.u32 %row, %ctaid.x;\n    mov.u32 %rows, %ntid.x;\n    mov.u32 %thread, %tid.x;\n\
             \x20   mad.lo.u32 %row, %row, %rows, %thread;\n    ld.param.u32 %rows, [rows];\n    setp.ge.u32 %outside, %row, %rows;\n\
             \x20   @%outside ret;\n    ld.param.u64 %in, [in];\n    cvta.to.global.u64 %in, %in;\n    mul.wide.u32 %offset, %row, {slots};\n\
             \x20   add.s64 %in, %in, %offset;\n    ld.param.u64 %out, [out];\n    cvta.to.global.u64 %out, %out;\n\
             \x20   mul.wide.u32 %offset, %row, {result_slots};\n    add.s64 %out, %out, %offset;\n{loads}    {text}\n{stores}    ret;\n}}\n"
        )
    }

    fn run(&self, gpu: &Gpu, table: &Table) -> Result<(), String> {
        let function =
            gpu.try_function(&self.ptx(table), "op").map_err(|error| format!("    is rejected: {error}"))?;
        let operands: Vec<u64> = self.rows.iter().flat_map(|row| row.operands.iter().copied()).collect();
        // An instruction without operands still needs an input buffer.
        let input = gpu.upload(if operands.is_empty() { &[0] } else { &operands });
        let mut output = gpu.zeros::<u64>(self.rows.len() * self.results.len());
        let rows = self.rows.len() as u32;
        let ran = launch!(gpu, function, (rows.div_ceil(table.block), 1, 1), (table.block, 1, 1), 0; &input, &mut output, &rows);
        ran.map_err(|error| format!("    fails to run: {error}; {}", gpu.findings_text()))?;
        let got = gpu.download(&output);
        let mut wrong = String::new();
        let mut count = 0;
        for (row, got) in self.rows.iter().zip(got.chunks(self.results.len())) {
            if row.results.iter().zip(got).all(|(expect, &got)| expect.holds(got)) {
                continue;
            }
            count += 1;
            if count <= 5 {
                let _ =
                    writeln!(wrong, "    {:x?} gives {got:x?}, expected {:x?}", row.operands, row.results);
            }
        }
        if count == 0 {
            Ok(())
        } else {
            Err(format!("{wrong}    {count} of {} rows are wrong", self.rows.len()))
        }
    }
}
