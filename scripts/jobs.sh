#!/usr/bin/env bash
# Print how many tests run side by side: $JOBS, else one a core and at most four (a job may need 4 GB of memory).
echo "${JOBS:-$(($(getconf _NPROCESSORS_ONLN) < 4 ? $(getconf _NPROCESSORS_ONLN) : 4))}"
