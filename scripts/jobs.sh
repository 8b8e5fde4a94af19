#!/usr/bin/env bash
# Print how many test files run in parallel: $JOBS, or else one per core, at most four (a job may need 4 GB of memory).
echo "${JOBS:-$(($(getconf _NPROCESSORS_ONLN) < 4 ? $(getconf _NPROCESSORS_ONLN) : 4))}"
