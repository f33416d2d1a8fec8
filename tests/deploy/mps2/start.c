/* The first words a Cortex-M reads: where its stack begins, and where the program does. Newlib's _start does the rest. */
extern char __stack[];
void _start(void);
void reset(void);

void reset(void) { _start(); }

__attribute__((section(".vectors"), used)) static const void *const vectors[2] = {__stack, (const void *)reset};
