/* What a test's harness may call; `harness` is the test's own, and returns the exit status. */
#include <stdint.h>

void print_words(const char* label, const void* data, uint32_t count);
void start_clock(void);
uint32_t clock_ticks(void);
int32_t harness(void);
