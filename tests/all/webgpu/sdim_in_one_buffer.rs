//! SDIM's kept tables in one buffer with the behaviours: a copy is written, which must hold what other slots do.

use longseq::webgpu::WgpuBuffer;
use longseq::*;
use longseq_check::device::webgpu::device;

#[test]
fn other_slots_stay_as_they_are_where_tables_share_a_buffer() {
    let Some(gpu) = device() else { return };
    for bits in [1, 7] {
        let op = Sdim::new(3).with_groups(2, bits);
        let (length, count) = (op.table_length(1).expect("a small table"), 5);
        let rows: Vec<f32> = (0..4 * op.width).map(|i| i as f32 - 3.5).collect();
        let signatures = [0u8, 1, 1, 1, 0, 0, 1, 0];
        let kept: Vec<f32> = (0..count * length).map(|i| 0.25 * (i % 64) as f32).collect();
        let all = gpu.upload(&[&rows[..], &kept].concat()).expect("an upload");
        let part = |start: usize, length| {
            WgpuBuffer::<f32>::from_buffer(all.buffer().clone(), 4 * start as u64, length).expect("a part")
        };
        let (history, mut table) = (part(0, rows.len()), part(rows.len(), kept.len()));
        let given = gpu.upload(&signatures).expect("an upload");
        let new = Jagged::from_lengths(&[3, 0, 1]).and_then(|new| new.with_slots(&[3, 0, 1], count));
        let new = new.expect("three slots of five");
        let on_device = gpu.jagged(&new).expect("a batch");
        let inputs = SdimEncodeInputs::new(gpu.view(&history), Hash::Signatures8(gpu.view(&given)));
        let on_host = SdimEncodeInputs::new(Host::view(&rows), Hash::Signatures8(Host::view(&signatures)));
        let (cpu, mut expected) = (Cpu::new(), kept.clone());
        // Small numbers: all sums are exact.
        let mut check = |call: &str| {
            let got = gpu.download(gpu.view(&all)).expect("a download");
            let (table, to) = (gpu.view_mut(&mut table), Host::view_mut(&mut expected));
            assert_eq!(got[..rows.len()], rows, "before {call}");
            assert_eq!(got[rows.len()..], to[..], "before {call}");
            match call {
                "sdim_append" => {
                    cpu.sdim_append(&op, &new, on_host, to)?;
                    gpu.sdim_append(&op, &on_device, inputs, table)
                }
                "sdim_encode" => {
                    cpu.sdim_encode_into(&op, &new, on_host, to)?;
                    gpu.sdim_encode_into(&op, &on_device, inputs, table)
                }
                _ => {
                    cpu.sdim_remove(&op, &new, on_host, to)?;
                    gpu.sdim_remove(&op, &on_device, inputs, table)
                }
            }
        };
        for call in ["sdim_append", "sdim_remove", "sdim_encode", "sdim_append", "sdim_remove"] {
            check(call).expect("a valid call");
        }
        let got = gpu.download(gpu.view(&all)).expect("a download");
        assert_eq!(got[rows.len()..], expected);
    }
}
