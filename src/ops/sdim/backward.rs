//! The shape rules of SDIM's gradients.

use crate::error::Result;
use crate::jagged::Jagged;
use crate::ops::sdim::parameters::Sdim;
use crate::ops::shape::{dim, expect};

impl Sdim {
    /// Checks the gradient of the output of `query` or `attend` that comes into the backward pass (named by `operation`).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if it is not `[M, d]`.
    pub fn check_grad_out(&self, operation: &'static str, targets: &Jagged, grad_out: usize) -> Result<()> {
        expect(operation, "grad_out", grad_out, &[dim("M", targets.rows()), dim("d", self.width)])?;
        Ok(())
    }

    /// Checks the gradient of the tables of `users` users, which comes in or goes out (named by `operation`).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if it is not `[B, G, 2^τ, d]`.
    pub fn check_grad_table(&self, operation: &'static str, users: usize, grad_table: usize) -> Result<()> {
        expect(operation, "grad_table", grad_table, &self.table_shape(users))?;
        Ok(())
    }

    /// Checks the gradient of the behaviours that goes out (named by `operation`).
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if it is not `[N, d]`, or histories share rows; [`Error::Parameter`](crate::Error::Parameter) if
    /// they have slots.
    pub fn check_grad_history(
        &self,
        operation: &'static str,
        histories: &Jagged,
        grad_history: usize,
    ) -> Result<()> {
        histories.check_no_slots(operation, "histories")?;
        histories.check_disjoint(operation)?;
        let shape = [dim("N", histories.rows()), dim("d", self.width)];
        expect(operation, "grad_history", grad_history, &shape)?;
        Ok(())
    }
}
