/* What a vCPU's exits mean. */
#pragma once

struct vcpu;

/* Handles the exit that KVM_RUN returned with; ends the process where the guest cannot go on. */
void exits_handle(struct vcpu *v);
