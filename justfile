# Each recipe is one command; `cargo xtask help` explains them.

default: test

test *ARGS:
    cargo xtask test {{ARGS}}

quick:
    cargo xtask test --quick

tidy:
    cargo xtask tidy

demo:
    cargo run --release -- demo

sim *ARGS:
    cargo run --release -p lidless-sim -- {{ARGS}}

deny:
    cargo deny check bans licenses sources

bench-setup:
    cargo xtask bench-setup
