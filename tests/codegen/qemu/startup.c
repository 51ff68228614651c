/* Start-up and semihosting for the Cortex-M boards mps2-an385 (M3), mps2-an386 (M4) and mps2-an500 (M7) that QEMU emulates. */
#include <stdint.h>

#include "harness.h"

extern uint32_t _data_load, _data_start, _data_end, _bss_start, _bss_end, _stack_top;
extern int32_t harness(void);

static int32_t semihost(int32_t operation, const void* argument) {
  register int32_t r0 __asm__("r0") = operation;
  register const void* r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

void print_words(const char* label, const void* data, uint32_t count) {
  static const char digits[] = "0123456789abcdef";
  const uint8_t* bytes = (const uint8_t*)data;
  semihost(4, label); /* SYS_WRITE0 */
  for (uint32_t i = 0; i < count; ++i) {
    const char text[3] = {digits[bytes[i] >> 4], digits[bytes[i] & 15], 0};
    semihost(4, text);
  }
  semihost(4, "\n");
}

/* The SysTick timer counts down 24 bits at the board's 25 MHz. */
void start_clock(void) {
  *(volatile uint32_t*)0xE000E014u = 0xFFFFFFu;
  *(volatile uint32_t*)0xE000E018u = 0u;
  *(volatile uint32_t*)0xE000E010u = 5u;
}

uint32_t clock_ticks(void) { return 0xFFFFFFu - *(volatile uint32_t*)0xE000E018u; }

static void finish(uint32_t status) {
  const uint32_t arguments[2] = {0x20026u, status}; /* ADP_Stopped_ApplicationExit */
  semihost(0x20, arguments);                        /* SYS_EXIT_EXTENDED */
  for (;;) {
  }
}

void fault(void) { finish(99); }

void reset(void) {
  uint32_t* from = &_data_load;
  for (uint32_t* to = &_data_start; to < &_data_end;) *to++ = *from++;
  for (uint32_t* to = &_bss_start; to < &_bss_end;) *to++ = 0;
  *(volatile uint32_t*)0xE000ED88u |= 0xFu << 20; /* the coprocessor access register: floating point */
  __asm__ volatile("dsb\n isb");
  finish((uint32_t)harness());
}

__attribute__((section(".vectors"), used)) static void* const vectors[16] = {
    &_stack_top, (void*)reset, (void*)fault, (void*)fault, (void*)fault, (void*)fault, (void*)fault,
};
