# Figures are left in the target folder by each bench; `report` makes tables and plots of them.
.PHONY: bench bench-quick report guards

bench:
	cargo bench --bench paired --bench instructions --bench allocations --bench contention --bench storm
	-$(MAKE) -C benches/peers bench
	$(MAKE) report

bench-quick:
	cargo bench --bench paired --bench contention --bench storm -- --quick
	cargo bench --bench instructions --bench allocations
	$(MAKE) report

report:
	cargo bench --bench report

# Regression guards that count. Instructions need an optimised build, and valgrind.
guards:
	cargo test --release --test allocations --test instructions
