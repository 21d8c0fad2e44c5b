//! Control flow and syntax: PTX ISA, "Control Flow Instructions", "Predicated Execution", "Syntax".

use crate::support::{Expect, Gpu, Row, Table, Width, Word};

fn rows_of(oracle: impl Fn(u32) -> u32) -> Vec<Row> {
    (0..64u32)
        .map(|a| Row { operands: vec![a.bits()], results: vec![Expect::Bits(oracle(a).into())] })
        .collect()
}

#[test]
fn predicates_guard_single_instructions() {
    let mut table = Table::new();
    table.binary("mov.u32 %r, 1; @%b mov.u32 %r, %a;", |a: u32, b: bool| if b { a } else { 1 });
    table.binary("mov.u32 %r, 1; @!%b mov.u32 %r, %a;", |a: u32, b: bool| if b { 1 } else { a });
    table.binary(
        "selp.u32 %r, 5, 6, %b; @%b add.u32 %r, %r, %a;",
        |a: u32, b: bool| if b { a.wrapping_add(5) } else { 6 },
    );
    table.run(&Gpu::new());
}

#[test]
fn branches_diverge_and_reconverge() {
    let mut table = Table::new();
    let word = [Width::B32];
    table.raw(
        "{ .reg .pred %p; setp.lt.u32 %p, %a, 20; @%p bra LESS; mul.lo.u32 %r, %a, 3; bra.uni DONE; LESS: add.u32 %r, %a, 1000; DONE: add.u32 %r, %r, 1; }",
        &word,
        &word,
        rows_of(|a| if a < 20 { a + 1001 } else { 3 * a + 1 }),
    );
    // Nested loops whose trip counts differ between lanes.
    table.raw(
        "{ .reg .pred %p; .reg .b32 %i, %j; mov.u32 %r, 0; mov.u32 %i, 0; OUTER: setp.ge.u32 %p, %i, %a; @%p bra DONE; mov.u32 %j, 0; \
         INNER: add.u32 %r, %r, %j; add.u32 %j, %j, 1; setp.le.u32 %p, %j, %i; @%p bra INNER; add.u32 %i, %i, 1; bra OUTER; DONE: }",
        &word,
        &word,
        rows_of(|a| (0..a).map(|i| i * (i + 1) / 2).sum()),
    );
    // Leaves a loop in the middle of its body.
    table.raw(
        "{ .reg .pred %p; .reg .b32 %x, %odd; mov.u32 %r, 0; add.u32 %x, %a, 1; LOOP: setp.eq.u32 %p, %x, 1; @%p bra DONE; and.b32 %odd, %x, 1; \
         setp.eq.u32 %p, %odd, 0; @%p bra EVEN; mad.lo.u32 %x, %x, 3, 1; bra NEXT; EVEN: shr.u32 %x, %x, 1; NEXT: add.u32 %r, %r, 1; bra LOOP; DONE: }",
        &word,
        &word,
        rows_of(|a| {
            let (mut x, mut steps) = (u64::from(a) + 1, 0);
            while x != 1 {
                x = if x % 2 == 0 { x / 2 } else { 3 * x + 1 };
                steps += 1;
            }
            steps
        }),
    );
    table.run(&Gpu::new());
}

#[test]
fn indexed_branches_jump_by_a_table() {
    let mut table = Table::new();
    table.raw(
        "{ .reg .b32 %case; targets: .branchtargets ZERO, ONE, TWO; rem.u32 %case, %a, 3; brx.idx %case, targets; ZERO: mov.u32 %r, 10; bra DONE; \
         ONE: mov.u32 %r, 20; bra DONE; TWO: mov.u32 %r, 30; DONE: }",
        &[Width::B32],
        &[Width::B32],
        rows_of(|a| [10, 20, 30][(a % 3) as usize]),
    );
    table.run(&Gpu::new());
}

#[test]
fn inner_scopes_shadow_outer_names() {
    let mut table = Table::new();
    table.raw(
        "{ .reg .b32 %x; mov.u32 %x, 5; { .reg .b32 %x; mov.u32 %x, 7; { .reg .u32 %x<3>; mov.u32 %x2, %a; add.u32 %r, %x2, %x; } add.u32 %r, %r, %x; } add.u32 %r, %r, %x; }",
        &[Width::B32],
        &[Width::B32],
        rows_of(|a| a + 19),
    );
    // A label of an inner scope is a different label.
    table.raw(
        "{ mov.u32 %r, %a; { bra SKIP; add.u32 %r, %r, 100; SKIP: add.u32 %r, %r, 1; } { bra SKIP; add.u32 %r, %r, 1000; SKIP: add.u32 %r, %r, 2; } }",
        &[Width::B32],
        &[Width::B32],
        rows_of(|a| a + 3),
    );
    table.run(&Gpu::new());
}

#[test]
fn comments_pragmas_and_lines_are_skipped() {
    let mut table = Table::new();
    table.raw(
        "/* a comment; with mov.u32 %r, 1; inside */ .pragma \"nounroll\"; // to the end of the line\n mov.u32 %r, %a; mov.u32 \n %r \n , \n %r;\n .loc 1 2 3\n add.u32 %r,%r,1;",
        &[Width::B32],
        &[Width::B32],
        rows_of(|a| a + 1),
    );
    table.run(&Gpu::new());
}

/// A module with functions, which kernel `k` calls in each thread.
fn run_module(functions: &str, body: &str, oracle: impl Fn(u32) -> u32) {
    let gpu = Gpu::new();
    let ptx = format!(
        ".version 7.4\n.target sm_80\n.address_size 64\n{functions}\n.visible .entry k(.param .u64 to)\n{{\n.reg .b64 %to, %at;\n\
         .reg .b32 %a, %r, %x, %y;\n.reg .pred %p;\nld.param.u64 %to, [to];\nmov.u32 %a, %tid.x;\nmul.wide.u32 %at, %a, 4;\nadd.u64 %to, %to, %at;\n\
         {body}\nst.global.u32 [%to], %r;\nret;\n}}\n"
    );
    let function = gpu.function(&ptx, "k");
    let mut output = gpu.zeros::<u32>(64);
    crate::support::launch!(gpu, function, (1, 1, 1), (64, 1, 1), 0; &mut output)
        .unwrap_or_else(|error| panic!("{error}: {}", gpu.findings_text()));
    let expected: Vec<u32> = (0..64).map(oracle).collect();
    assert_eq!(gpu.download(&output), expected);
}

const SQUARE: &str = ".func (.param .b32 out) square(.param .b32 x)\n{\n.reg .b32 %x;\nld.param.b32 %x, [x];\nmul.lo.u32 %x, %x, %x;\n\
                      st.param.b32 [out], %x;\nret;\n}\n";

const CALL_SQUARE: &str = "{\n.param .b32 argument;\n.param .b32 result;\nst.param.b32 [argument], %x;\ncall.uni (result), square, (argument);\n\
                           ld.param.b32 %y, [result];\n}\n";

#[test]
fn functions_take_and_return_values() {
    run_module(SQUARE, &format!("mov.u32 %x, %a;\n{CALL_SQUARE}\nadd.u32 %r, %y, 1;"), |a| a * a + 1);
}

/// Only some lanes make the call; they reconverge with the others after it.
#[test]
fn a_call_may_diverge() {
    let call = CALL_SQUARE.replace("call.uni", "call");
    let body = format!(
        "setp.lt.u32 %p, %a, 21;\nmov.u32 %r, 7;\n@%p bra PAST;\nmov.u32 %x, %a;\n{call}\nmov.u32 %r, %y;\nPAST:\nadd.u32 %r, %r, 1;"
    );
    run_module(SQUARE, &body, |a| if a < 21 { 8 } else { a * a + 1 });
}

#[test]
fn functions_call_functions() {
    let twice = format!(
        ".func (.param .b32 out) square(.param .b32 x);\n.func (.param .b32 out) fourth(.param .b32 x)\n{{\n.reg .b32 %x, %y;\nld.param.b32 %x, [x];\n\
         {CALL_SQUARE}mov.u32 %x, %y;\n{CALL_SQUARE}st.param.b32 [out], %y;\nret;\n}}\n{SQUARE}"
    );
    let body = format!("mov.u32 %x, %a;\n{}\nmov.u32 %r, %y;", CALL_SQUARE.replace("square", "fourth"));
    run_module(&twice, &body, |a| a.wrapping_pow(4));
}

/// Each call has its own registers and local memory; the recursion depth differs between lanes.
#[test]
fn functions_may_be_recursive() {
    let factorial = ".func (.param .b32 out) down(.param .b32 x)\n{\n.local .align 4 .b8 own[4];\n.reg .b32 %x, %y;\n.reg .pred %p;\nld.param.b32 %x, [x];\n\
        st.local.u32 [own], %x;\nmov.u32 %y, 0;\nsetp.eq.u32 %p, %x, 0;\n@%p bra DONE;\nsub.u32 %x, %x, 1;\n{\n.param .b32 argument;\n.param .b32 result;\n\
        st.param.b32 [argument], %x;\ncall (result), down, (argument);\nld.param.b32 %y, [result];\n}\nDONE:\nld.local.u32 %x, [own];\nadd.u32 %y, %y, %x;\n\
        st.param.b32 [out], %y;\nret;\n}\n";
    let body = format!(
        "mov.u32 %x, %a;\n{}\nmov.u32 %r, %y;",
        CALL_SQUARE.replace("square", "down").replace(".uni", "")
    );
    run_module(factorial, &body, |a| a * (a + 1) / 2);
}

/// Structures are passed and returned by value, as arrays of bytes.
#[test]
fn structures_are_passed_by_value() {
    let swap = ".func (.param .align 8 .b8 out[16]) swap(.param .align 8 .b8 pair[16])\n{\n.reg .b64 %l, %h;\nld.param.b64 %l, [pair];\n\
        ld.param.b64 %h, [pair+8];\nst.param.b64 [out], %h;\nst.param.b64 [out+8], %l;\nret;\n}\n";
    let body = "{\n.param .align 8 .b8 argument[16];\n.param .align 8 .b8 result[16];\n.reg .b64 %w;\ncvt.u64.u32 %w, %a;\nst.param.b64 [argument], %w;\n\
        mov.u64 %w, 7;\nst.param.b64 [argument+8], %w;\ncall.uni (result), swap, (argument);\nld.param.v2.b32 {%x, %y}, [result];\n\
        ld.param.b64 %w, [result+8];\ncvt.u32.u64 %r, %w;\nmad.lo.u32 %r, %x, 100, %r;\n}";
    run_module(swap, body, |a| 700 + a);
}

/// A predicated `ret` leaves the function, `exit` the kernel.
#[test]
fn returns_and_exits_may_be_guarded() {
    let early = ".func (.param .b32 out) early(.param .b32 x)\n{\n.reg .b32 %x;\n.reg .pred %p;\nld.param.b32 %x, [x];\nst.param.b32 [out], 5;\n\
        setp.lt.u32 %p, %x, 30;\n@%p ret;\nst.param.b32 [out], %x;\nret;\n}\n";
    let body = format!(
        "mov.u32 %x, %a;\n{}\nmov.u32 %r, %y;\nsetp.gt.u32 %p, %a, 40;\n@%p exit;",
        CALL_SQUARE.replace("square", "early").replace(".uni", "")
    );
    run_module(early, &body, |a| match a {
        0..30 => 5,
        30..=40 => a,
        _ => 0,
    });
}

#[test]
fn nanosleep_has_no_effect() {
    let mut table = Table::new();
    table.unary("nanosleep.u32 20; mov.u32 %r, %a;", |a: u32| a);
    table.unary("{ .reg .b32 %t; and.b32 %t, %a, 63; nanosleep.u32 %t; mov.u32 %r, %a; }", |a: u32| a);
    table.run(&Gpu::new());
}
